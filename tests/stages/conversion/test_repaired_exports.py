"""Exports of a network whose channels differ so much that int8 leaves nothing of most of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from _helpers.support import call

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the network, calibration samples, and its plain and repaired exports."""
    import torch
    from torch import nn

    folder = tmp_path_factory.mktemp("repaired")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    factor = torch.exp(2 * torch.randn(32))
    with torch.no_grad():
        net[0].weight.mul_(factor[:, None])
        net[0].bias.mul_(factor)
        net[2].weight.div_(factor)
    x = torch.randn(240, 8)
    torch.export.save(
        torch.export.export(net, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)), folder / "net.pt2"
    )
    np.savez(folder / "calibration.npz", input=x.numpy())
    return folder


def export(project, *options):
    """Return the manifest of an export of the network, and the text that the command prints about it."""
    words = [str(project / "net.pt2"), "--calibration", str(project / "calibration.npz"), "--root", str(project)]
    answer = call("export", *words, *options)
    assert answer.code == 0, answer.err
    (folder,) = answer.out.split()
    return json.loads((project / folder / "manifest.json").read_text()), answer.err


def test_channels_are_scaled_where_that_gains_something_and_recipes_repeat_it(project):
    plain, _ = export(project, "--target", "onnx:int8", "--no-repair")
    assert "repair" not in plain["options"]
    repaired, text = export(project, "--target", "onnx:int8")
    assert repaired["options"]["repair"] == {"migration": 0.5}
    (note,) = [note for note in repaired["notes"] if "channels scaled" in note]
    assert note in text
    after, before = (float(part.split(" dB")[0].split()[-1]) for part in note.split(": ")[1].split(", "))
    assert after > before + 10
    (project / "recipe.json").write_text(json.dumps({"target": "onnx", "precision": "int8", "migration": 0.5}))
    repeated, _ = export(project, "--recipe", str(project / "recipe.json"))
    assert repeated["sha256"] == repaired["sha256"] != plain["sha256"]


def test_weights_in_int8_profit_as_well(project):
    manifest, _ = export(project, "--target", "onnx:dynamic")
    assert manifest["options"]["repair"] == {"migration": 0.5}
    assert manifest["calibration"] is None
