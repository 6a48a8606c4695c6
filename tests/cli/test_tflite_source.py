"""Files of TensorFlow Lite as models on the command line: exported, validated, compared, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _helpers.support import WORKER_PATH, call
from _helpers.worker_side.function_call import FunctionCall, call_function

from edgekit.core.records.artifact import load_artifact
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

Write = Callable[..., Path]


@pytest.fixture
def write(pool: WorkerPool, tmp_path: Path) -> Write:
    """Return a function: `write("network", "net.tflite", form="int8")` writes that file."""

    def run(function: str, file: str, /, **arguments: Any) -> Path:
        path = tmp_path / file
        pool.call(
            call_function,
            FunctionCall("tflite_models", function, {"path": str(path), **arguments}),
            step=f"write {file}",
            environment=Environment.of({"PYTHONPATH": WORKER_PATH}, confined=False),
        )
        return path

    return run


@pytest.mark.slow
def test_a_quantized_file_is_dequantized_and_exported_to_other_formats(write: Write, tmp_path: Path) -> None:
    file = write("network", "net.tflite", form="int8")
    np.savez(tmp_path / "photos.npz", image=np.random.default_rng(0).random((40, 8, 8, 2), np.float32))
    targets = ("--target", "tflite:float32", "--target", "tflite:int8", "--target", "onnx:float32")
    answer = call("export", file, "--sample", tmp_path / "photos.npz", *targets, "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert "the network is quantized (int8): dequantized into float32, which is the reference" in answer.err
    assert "its outputs agree with the file's to 3" in answer.err  # dB
    source = tmp_path / "build" / "net" / "tflite"
    manifest = load_artifact(source / "onnx-float32").manifest
    assert manifest.route == ("tflite", "onnx")
    assert [(spec.name, spec.shape) for spec in manifest.signature.inputs] == [("image", (1, 8, 8, 2))]
    assert [(spec.name, spec.shape) for spec in manifest.signature.outputs] == [("scores", (1, 3))]
    validated = call("validate", "net", "--root", tmp_path)
    assert validated.code == 0, validated.err + validated.out
    # The file itself is compared as it is, by its own runtime.
    compared = call(
        "compare", file, source / "onnx-float32", "--samples", tmp_path / "photos.npz", "--root", tmp_path, "--json"
    )
    assert compared.code == 0, compared.err
    assert (compared.data["verdict"], compared.data["precision"]) == ("equal", "int8")


@pytest.mark.slow
def test_a_file_reaches_pytorch_by_way_of_onnx(write: Write, tmp_path: Path) -> None:
    file = write("network", "net.tflite", form="float16")
    answer = call("export", file, "--target", "torchscript:float32", "--layout", "NCHW", "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert "the weights are float16: they were converted into float32" in answer.err
    manifest = load_artifact(tmp_path / "build" / "net" / "tflite" / "torchscript-float32").manifest
    assert manifest.route == ("tflite", "onnx", "torch", "torchscript")
    assert manifest.signature.inputs[0].shape == (1, 2, 8, 8)
    assert call("validate", "net", "--root", tmp_path).code == 0


def test_an_input_becomes_a_constant_and_a_layout_changes(write: Write, tmp_path: Path) -> None:
    file = write("network", "net.tflite")
    answer = call("export", file, "--target", "tflite:float32", "--layout", "NCHW", "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert "layout NCHW: 1 transposes in the file" in answer.err
    assert call("validate", "net", "--root", tmp_path).code == 0


def test_operators_without_translation_are_named_once_and_with_a_way_out(write: Write, tmp_path: Path) -> None:
    file = write("untranslatable", "angles.tflite")
    targets = ("--target", "tflite:float32", "--target", "onnx:float32")
    answer = call("export", file, *targets, "--root", tmp_path)
    assert answer.code == 2
    assert (
        "does not translate ATAN2 of this .tflite file; export it to tflite, which needs no translation" in answer.err
    )
    assert (tmp_path / "build" / "angles" / "tflite" / "tflite-float32").is_dir()


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("FlexErf", "net.tflite: this file computes with TensorFlow's own operators (Erf), which need TensorFlow"),
        ("Mine", "LiteRT has no operator Mine, which this .tflite file computes with: it is a custom operator"),
    ],
)
def test_files_that_litert_does_not_run_are_refused(write: Write, tmp_path: Path, operator: str, expected: str) -> None:
    answer = call("export", write("unknown", "net.tflite", name=operator), "--root", tmp_path)
    assert answer.code == 2
    assert expected in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("size", [0, 3, 40, 700])
def test_a_damaged_file_is_refused_in_one_sentence(write: Write, tmp_path: Path, size: int) -> None:
    file = write("network", "net.tflite")
    file.write_bytes(file.read_bytes()[:size])
    answer = call("export", file, "--root", tmp_path)
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert str(file) in answer.err
