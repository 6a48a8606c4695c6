"""Model files that edgekit did not export: measured, run on a microcontroller's kernels, and held to budgets."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from _helpers.emulation import PLUGIN_SOURCE, one_op
from _helpers.support import call
from onnx import TensorProto, helper

QUICK = ("--min-duration", "0", "--min-runs", "2")


@pytest.fixture
def file(tmp_path):
    return shutil.copy(PLUGIN_SOURCE.with_name("one_op.tflite"), tmp_path / "vendor's net.tflite")


def onnx_file(path, shape, dtype=TensorProto.FLOAT):
    """A file that adds its input to itself."""
    values = [helper.make_tensor_value_info(name, dtype, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "net", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_file_is_measured_and_nothing_is_written(file, tmp_path):
    answer = call("bench", file, *QUICK, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    (measured,) = answer.data["measurements"]
    assert (measured["model"], measured["kind"]) == ("vendor_s_net", "file")
    assert (measured["target"], measured["precision"]) == ("tflite", "float32")
    assert measured["size_bytes"] == (tmp_path / "vendor's net.tflite").stat().st_size
    assert "is judged as float32, on samples that are random numbers" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["vendor's net.tflite"]


def test_several_files_of_several_formats_are_measured_at_once(file, tmp_path):
    other = onnx_file(tmp_path / "other.onnx", ["batch", 3])
    answer = call("bench", file, other, *QUICK, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert [measured["target"] for measured in answer.data["measurements"]] == ["tflite", "onnx"]


def test_a_file_runs_on_the_kernels_of_a_microcontroller_and_becomes_c_code(file, tmp_path):
    pytest.importorskip("tflite_micro")
    answer = call("micro", file, "--emit-c", tmp_path / "c", "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.data["artifacts"]) == 1
    assert answer.data["written"] == [str(tmp_path / "c" / "vendor_s_net_file_float32")]


def test_a_file_is_held_to_budgets_and_to_no_source(file, tmp_path):
    passed = call("check", file, "--max-size", "1MB", "--root", tmp_path, "--json")
    assert passed.code == 0, passed.err
    assert [verdict["rule"] for verdict in passed.data["verdicts"]] == ["size_bytes"]
    failed = call("check", file, "--max-size", "10B", "--root", tmp_path)
    assert (failed.code, "exceeds the limit" in failed.out) == (1, True)


@pytest.mark.filterwarnings("ignore")  # the quantizer opens the file for debugging, and warns of that
def test_integers_with_a_scale_are_drawn_from_their_range(tmp_path):
    """The source of an int8 file computes with real numbers, and so do the samples."""
    from ai_edge_quantizer import quantizer, recipe

    builder = quantizer.Quantizer(str(PLUGIN_SOURCE.with_name("one_op.tflite")), recipe.static_wi8_ai8())
    samples = np.random.default_rng(0).standard_normal((4, 1, 8)).astype(np.float32)
    (signature,) = _signatures(PLUGIN_SOURCE.with_name("one_op.tflite"))
    calibration = builder.calibrate({signature[0]: [{signature[1]: sample} for sample in samples]})
    path = tmp_path / "int8.tflite"
    path.write_bytes(builder.quantize(calibration).quantized_model)
    answer = call("bench", path, *QUICK, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["measurements"][0]["precision"] == "int8"


def _signatures(path):
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(path)).get_signature_list()
    return [(name, value["inputs"][0]) for name, value in signatures.items()]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("damaged.tflite", b"no flatbuffer", "damaged.tflite"),
        ("empty.onnx", b"", "empty.onnx"),
        ("unknown.xyz", b"x", "this command needs an artifact"),
    ],
)
def test_a_file_that_is_no_model_is_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    answer = call("bench", tmp_path / name, "--root", tmp_path)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_a_dimension_without_a_size_is_named(tmp_path):
    path = onnx_file(tmp_path / "free.onnx", ["batch", "length"])
    answer = call("bench", path, "--root", tmp_path)
    assert answer.code == 2
    assert "the dimension length of the input x has no size; export the file with one" in answer.err


def test_a_command_that_needs_a_source_says_so(file, tmp_path):
    answer = call("validate", file, "--root", tmp_path)
    assert answer.code == 2
    assert (
        "this command needs an artifact; export the model first, or compare files with: edgekit compare" in answer.err
    )


def test_a_model_file_of_an_artifact_stands_for_the_artifact(tmp_path):
    artifact = one_op(tmp_path, "onnx")
    answer = call("bench", artifact.path, *QUICK, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    (measured,) = answer.data["measurements"]
    assert (measured["model"], measured["kind"]) == ("one_op", "keras")
    assert (artifact.folder / "bench-host.json").is_file()


def test_a_model_file_beside_a_damaged_manifest_is_refused(file, tmp_path):
    folder = tmp_path / "artifact"
    folder.mkdir()
    shutil.copy(file, folder / "model.tflite")
    (folder / "manifest.json").write_text(json.dumps({}))
    answer = call("bench", folder / "model.tflite", "--root", tmp_path)
    assert answer.code == 2
    assert "manifest.json" in answer.err
