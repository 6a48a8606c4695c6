"""Patches during lowering: only with the releases that they are tested with, and without an effect on the file."""

import contextlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.environment.requirements import Requirement
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._module import LoadedTorch
from edgekit.targets._torch import executorch_lowering
from edgekit.targets._torch.executorch_lowering import faster_lowering, patterns_exported_once
from edgekit.targets.executorch import TARGET

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and torchao deprecate one another's names


class Internals:
    """The attributes that each patch replaces, and the original values."""

    def __init__(self):
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils
        from executorch.exir.pass_base import _ExportPassBase
        from torchao.quantization.pt2e import qat_utils, utils

        pattern = "_get_aten_graph_module_for_pattern"
        self.replaced_by = {
            faster_lowering: (
                (torch.fx.traceback.NodeSource, "__deepcopy__"),
                (torch.fx.GraphModule, "recompile"),
                (torch.fx.GraphModule, "__str__"),
                (torch.export.ExportedProgram, "_validate"),
                (_ExportPassBase, "call"),
                (_ExportPassBase.ExportInterpreter, "run_node"),
            ),
            patterns_exported_once: ((utils, pattern), (qat_utils, pattern), (xnnpack_quantizer_utils, pattern)),
        }
        self.before = self.values()

    def values(self):
        places = [place for places in self.replaced_by.values() for place in places]
        return {(owner, name): getattr(owner, name, None) for owner, name in places}

    def changed(self):
        return {place for place, value in self.values().items() if value is not self.before[place]}


@pytest.fixture
def internals():
    return Internals()


def fake_release(monkeypatch, distribution, release):
    version = Requirement.version
    monkeypatch.setattr(
        Requirement, "version", lambda self: release if self.distribution == distribution else version(self)
    )


@pytest.mark.slow
@pytest.mark.parametrize("patch", [faster_lowering, patterns_exported_once])
def test_internals_are_patched_for_as_long_as_the_block_runs(patch, internals):
    with contextlib.suppress(KeyError), patch():
        assert internals.changed() == set(internals.replaced_by[patch])
        raise KeyError
    assert internals.changed() == set()


@pytest.mark.parametrize("patch", [faster_lowering, patterns_exported_once])
@pytest.mark.parametrize(
    ("distribution", "release"),
    [("torch", "2.14.0"), ("torch", "2.1.3"), ("torch", None), ("executorch", "1.6.0"), ("torchao", "0.19.1")],
)
def test_with_another_release_internals_stay_untouched(patch, distribution, release, internals, monkeypatch, caplog):
    fake_release(monkeypatch, distribution, release)
    with caplog.at_level(logging.DEBUG, "edgekit"), patch():
        assert internals.changed() == set()
    tested = {"torch": "2.13", "executorch": "1.5", "torchao": "0.18"}[distribution]
    assert caplog.messages == [
        f"lowering without patches, which is slower: they are tested with {distribution} {tested},"
        f" and {release or 'none'} is installed"
    ]
    assert caplog.records[0].levelno == logging.DEBUG


@pytest.mark.parametrize("release", ["2.13.0", "2.13.1", "2.13.0+cpu"])
def test_patch_releases_and_builds_of_a_tested_release_count_as_tested(release, monkeypatch):
    fake_release(monkeypatch, "torch", release)
    assert executorch_lowering.patches_apply()


class Network(torch.nn.Module):
    """Layers that several of XNNPACK's passes edit: a fused convolution, a batch norm, a view and a softmax."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4 * 8 * 8, 3)

    def forward(self, x):
        return torch.softmax(self.head(torch.relu(self.norm(self.conv(x))).flatten(1)), 1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_file_has_the_same_bytes_with_and_without_the_patches(precision, tmp_path: Path, monkeypatch):
    signature = Signature((TensorSpec("x", (1, 1, 8, 8), "float32"),), (TensorSpec("y", (1, 3), "float32"),))
    samples = {"x": np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)}
    torch.manual_seed(0)
    source = LoadedTorch(Network().eval(), signature)

    def convert(name):
        folder = tmp_path / name
        folder.mkdir()
        return (folder / TARGET.convert(source, ConversionRequest(precision, folder, samples)).file).read_bytes()

    patched = convert("patched")
    fake_release(monkeypatch, "torch", "2.14.0")
    assert not executorch_lowering.patches_apply()
    assert convert("unpatched") == patched
