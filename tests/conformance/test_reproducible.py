"""The bytes of an artifact depend on the model and the versions, not on where, when and by whom it was exported."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from _helpers.support import spawn

pytestmark = pytest.mark.exhaustive

NETWORKS = """
def torch_net():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.dense = torch.nn.Linear(8, 4)

        def forward(self, image):
            return self.dense(torch.relu(self.conv(image)).mean((2, 3)))

    torch.manual_seed(0)
    return Net().eval()


def keras_net():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(image))
    return keras.Model(image, keras.layers.Dense(4, name="scores")(hidden))
"""
CELLS = {
    "torch_net": ("torchscript:float32", "lite-interpreter:float32", "tflite:float32", "tflite:int8", "onnx:float32"),
    "keras_net": ("tflite:int8", "onnx:int8", "torchscript:float32"),
}


def exported(folder: Path, network: str, variables: dict[str, str], umask: int) -> dict[str, str]:
    """Export a network in a folder; return the digests of the model files."""
    folder.mkdir(parents=True)
    home = folder.parent / "home"
    home.mkdir()
    (folder / "networks.py").write_text(NETWORKS)
    shape = (64, 3, 8, 8) if network == "torch_net" else (64, 8, 8, 3)
    samples = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.savez(folder / "samples.npz", image=samples)
    targets = [word for cell in CELLS[network] for word in ("--target", cell)]
    before = os.umask(umask)
    try:
        command = spawn(
            *("export", f"networks.py:{network}", "--name", "net", "--sample", "samples.npz", *targets, "--root", "."),
            cwd=folder,
            env={**os.environ, "HOME": str(home), **variables},
        )
        _, err = command.communicate()
    finally:
        os.umask(before)
    assert command.returncode == 0, err
    files = sorted((folder / "build" / "net").glob("*/*/model.*"))
    assert len([file for file in files if file.parent.name != "source"]) == len(CELLS[network])
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("network", CELLS)
def test_two_folders_two_users_and_two_time_zones_give_the_same_bytes(tmp_path: Path, network: str) -> None:
    first = exported(tmp_path / "a" / "x", network, {"TZ": "UTC", "USER": "ada", "LANG": "C"}, 0o022)
    other = {"TZ": "Asia/Tokyo", "USER": "grace", "LANG": "C.UTF-8"}
    second = exported(tmp_path / "another" / "project with a space", network, other, 0o077)
    assert first == second


def test_files_hold_no_name_of_our_own_code(tmp_path: Path) -> None:
    exported(tmp_path / "a" / "x", "torch_net", {}, 0o022)
    for file in (tmp_path / "a" / "x" / "build" / "net" / "torch").glob("*/model.*"):
        assert b"edgekit.targets" not in file.read_bytes(), file
