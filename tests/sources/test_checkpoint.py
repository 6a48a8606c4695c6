"""Weights as training scripts save them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.core.errors import InputError
from edgekit.sources._checkpoint import read_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def trained() -> dict[str, Any]:
    torch.manual_seed(1)
    return dict(network().state_dict())


def averages(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: weight + 1 for name, weight in weights.items()}


def prefixed(prefix: str, weights: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: weight for name, weight in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model_state_dict": w, "optimizer_state_dict": {"state": {}, "param_groups": []}},
        lambda w: {"model": prefixed("module.", w)},
        lambda w: prefixed("module.", w),
        lambda w: prefixed("_orig_mod.", w),
        lambda w: prefixed("module._orig_mod.", w),
        lambda w: {"state_dict": {**prefixed("model.", w), "loss.weight": torch.zeros(2)}, "epoch": 1, "loops": {}},
        # A configuration of a class that is not imported.
        lambda w: {"state_dict": prefixed("net.", w), "hyper_parameters": argparse.Namespace(lr=0.1)},
        lambda w: {name: weight for name, weight in w.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_weights_are_found_where_they_are(wrap, trained, tmp_path):
    path = tmp_path / "weights.ckpt"
    torch.save(wrap(trained), path)
    weights, _note = read_weights(path, network().state_dict())
    for name, weight in weights.items():
        torch.testing.assert_close(weight, trained[name])
    assert set(trained) - set(weights) <= {"1.num_batches_tracked"}


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda w: {"model": w, "ema": averages(w)}, "ema"),
        (lambda w: {"state_dict": w, "state_dict_ema": averages(w)}, "state_dict_ema"),
        (lambda w: {"params": w, "params_ema": averages(w)}, "params_ema"),
        (lambda w: {**prefixed("model.", w), **prefixed("ema_model.", averages(w))}, "ema_model"),
    ],
)
def test_averaged_weights_are_preferred_and_named(wrap, place, trained, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(wrap(trained), path)
    weights, note = read_weights(path, network().state_dict())
    torch.testing.assert_close(weights["0.weight"], trained["0.weight"] + 1)
    assert note.startswith(f"weights under {place} of weights.pt, which also has ")


def test_several_weights_that_fit_are_not_guessed_between(trained, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({**prefixed("teacher.", trained), **prefixed("student.", trained)}, path)
    with pytest.raises(InputError, match="several weights that fit the network, under 'student', 'teacher'"):
        read_weights(path, network().state_dict())


class Net(nn.Linear):
    """A class that a pickle of a whole module names."""


def test_a_network_without_weights_has_an_empty_file(trained, tmp_path):
    torch.save(nn.ReLU().state_dict(), tmp_path / "empty.pt")
    assert read_weights(tmp_path / "empty.pt", nn.ReLU().state_dict()) == ({}, "")
    with pytest.raises(InputError, match="this checkpoint contains a OrderedDict, not a state dict"):
        read_weights(tmp_path / "empty.pt", trained)


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path):
    path = tmp_path / "model.pt"
    torch.save(Net(2, 2), path)
    with pytest.raises(InputError, match=r"a whole pickled object \(.*Net\); .*save module.state_dict\(\), and name"):
        read_weights(path, network().state_dict())
