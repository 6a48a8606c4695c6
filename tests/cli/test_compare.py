"""`edgekit compare` with files of several formats and origins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from _helpers.planted_faults import FLOAT, planted
from _helpers.support import call


@pytest.fixture
def samples(project: Path, tmp_path: Path) -> Path:
    """Write the golden inputs of the Keras model, images `(N, H, W, C)`, with their classes."""
    golden = np.load(project / "build/simple_cnn/keras/source/golden.npz")
    name = next(key for key in golden.files if key.startswith("input"))
    labels = next(golden[key] for key in golden.files if "label" in key)
    np.savez(tmp_path / "samples.npz", image=golden[name], labels=labels)
    return tmp_path / "samples.npz"


def test_files_of_two_formats_are_paired_by_name_and_equal(project: Path, samples: Path):
    folder = project / "build/simple_cnn/keras"
    files = folder / "source/model.keras", folder / "onnx-float32/model.onnx"
    answer = call("compare", *files, "--samples", samples, "--root", project)
    assert answer.code == 0, answer.err
    assert "same name" in answer.out
    data = call("compare", *files, "--samples", samples, "--root", project, "--json").data
    assert data["verdict"] == "equal"
    assert data["task"]["first_accuracy"] == data["task"]["second_accuracy"]


def test_layouts_are_reconciled_and_int8_is_judged_as_int8(project: Path, samples: Path):
    folder = project / "build/simple_cnn/keras"
    files = folder / "tflite-float32", folder / "torchscript-int8"
    data = call("compare", *files, "--samples", samples, "--root", project, "--json").data
    assert data["precision"] == "int8"
    assert data["verdict"] == "equal"


def test_a_broken_file_is_not_equal(project: Path, samples: Path, tmp_path: Path):
    artifact = project / "build/simple_cnn/keras/onnx-float32"
    ((_, _, broken),) = planted(artifact / "model.onnx", {"weight": FLOAT["weight"]}, tmp_path)
    answer = call("compare", artifact, broken, "--samples", samples, "--root", project)
    assert answer.code == 1
    assert "not equal" in answer.out


def test_constant_outputs_are_no_evidence(project: Path, tmp_path: Path):
    artifact = project / "build/simple_cnn/keras/onnx-float32"
    np.savez(tmp_path / "same.npz", image=np.zeros((4, 28, 28, 1), np.float32))
    data = call("compare", artifact, artifact, "--samples", tmp_path / "same.npz", "--root", project, "--json")
    assert data.code == 1
    assert data.data["verdict"] == "no evidence"


def test_inputs_that_do_not_match_require_a_pairing(project: Path, samples: Path, tmp_path: Path):
    artifact = project / "build/simple_cnn/keras/onnx-float32"
    other = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["row"], ["y"])],
            "other",
            [onnx.helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, [1, 7])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 7])],
        ),
        ir_version=8,
    )
    onnx.save(other, tmp_path / "other.onnx")
    answer = call("compare", artifact, tmp_path / "other.onnx", "--samples", samples, "--root", project)
    assert answer.code == 2
    assert "--pair" in answer.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--pair", "image"), "write A=B"),
        (("--pair", "image=nothing"), "no tensor nothing"),
        (("--precision", "int7"), "int7"),
    ],
)
def test_wrong_options_are_one_sentence(project: Path, samples: Path, options, sentence):
    artifact = project / "build/simple_cnn/keras/onnx-float32"
    answer = call("compare", artifact, artifact, "--samples", samples, *options, "--root", project)
    assert answer.code == 2
    assert sentence in answer.err


def test_files_in_two_floating_point_types_take_the_same_samples(tmp_path: Path):
    weights = np.random.default_rng(0).normal(size=(6, 4))
    files = []
    for name, code, dtype in (
        ("half", onnx.TensorProto.FLOAT16, np.float16),
        ("single", onnx.TensorProto.FLOAT, np.float32),
    ):
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
            "net",
            [onnx.helper.make_tensor_value_info("x", code, ["batch", 6])],
            [onnx.helper.make_tensor_value_info("y", code, ["batch", 4])],
            [onnx.numpy_helper.from_array(weights.astype(dtype), "w")],
        )
        files.append(tmp_path / f"{name}.onnx")
        onnx.save(onnx.helper.make_model(graph, ir_version=8), files[-1])
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(1).normal(size=(8, 6)))
    for pair in (files, files[::-1]):
        data = call("compare", *pair, "--samples", tmp_path / "samples.npz", "--root", tmp_path, "--json").data
        assert (data["verdict"], data["precision"]) == ("equal", "float16")
