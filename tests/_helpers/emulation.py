"""What tests of the emulation share: a project with a model of one operator, and a reason to skip where QEMU is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.records.artifact import Artifact, Manifest, load_artifact, write_manifest
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.devices.emulation import tools
from edgekit.devices.emulation.folders import PLUGIN_SOURCE

DEVICE = "raspberry-pi-4b"
MISSING = [tool.package for tool in tools.ALL if tool.path() is None]

needs_emulator = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
needs_compiler = pytest.mark.skipif(tools.COMPILER.path() is None, reason="there is no C compiler")

SIGNATURE = Signature((TensorSpec("x", (1, 8), "float32"),), (TensorSpec("y", (1, 4), "float32"),))
_FORMATS = {"tflite": ("litert", "one_op.tflite"), "onnx": ("onnxruntime", "one_op.onnx")}


def one_op(root: Path, target: str = "tflite") -> Artifact:
    """build/one_op/keras/<target>-float32: a product with a matrix of ones, and golden samples to go with it."""
    runtime, file = _FORMATS[target]
    folder = root / "build" / "one_op" / "keras" / f"{target}-float32"
    folder.mkdir(parents=True)
    shutil.copy(PLUGIN_SOURCE.with_name(file), folder / file)
    inputs = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    outputs = np.repeat(inputs.sum(axis=1, keepdims=True), 4, axis=1)
    golden = Samples({"x": inputs}, {"y": outputs})
    golden.save(folder / GOLDEN_FILE)
    manifest = Manifest(
        "one_op", target, "float32", runtime, file, sha256_file(folder / file), (folder / file).stat().st_size,
        SIGNATURE, {"kind": "keras"}, ("keras", target), golden={"samples": 4, "sha256": golden.digest()},
    )  # fmt: skip
    write_manifest(folder, manifest)
    return load_artifact(folder)
