"""ONNX Runtime as edgekit opens it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.environment.instruction_set import saturates
from edgekit.runtimes.onnxruntime import RUNTIME


def int8_matmul(path, activation_type: int, weights) -> None:
    """Write a QDQ matrix product with scales of 1: its outputs are whole numbers."""
    rows, columns = weights.shape
    zero = 0 if activation_type == TensorProto.INT8 else 128
    constants = [
        numpy_helper.from_array(np.float32(1), "one"),
        helper.make_tensor("x_zero", activation_type, [], [zero]),
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.ones(columns, np.float32), "w_scale"),
        numpy_helper.from_array(np.zeros(columns, np.int8), "w_zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "x_zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("activation_type", [TensorProto.INT8, TensorProto.UINT8])
def test_int8_products_do_not_saturate_on_this_processor(tmp_path, activation_type):
    rng = np.random.default_rng(0)
    # Neighbours of one sign and near the limit: two products of uint8 and int8 exceed 16 bits.
    weights = np.repeat(rng.integers(100, 128, (32, 16), dtype=np.int8), 2, axis=0)
    x = rng.integers(100, 128, (1, 64)).astype(np.float32)
    int8_matmul(tmp_path / "model.onnx", activation_type, weights)
    session = RUNTIME.open(tmp_path / "model.onnx", threads=1)
    (y,) = session.run({"x": x}).values()
    assert np.array_equal(y, x @ weights.astype(np.float32))


@pytest.fixture
def saturating_file(tmp_path):
    """A file whose products exceed 16 bits in pairs, with an input and the exact result."""
    weights = np.full((64, 16), 120, np.int8)
    x = np.full((1, 64), 120, np.float32)
    int8_matmul(tmp_path / "model.onnx", TensorProto.INT8, weights)
    return tmp_path / "model.onnx", x, x @ weights.astype(np.float32)


@pytest.mark.skipif(not saturates(), reason="kernels of this processor do not saturate")
def test_what_an_application_gets_by_default_is_told_from_the_files_own_error(saturating_file):
    path, x, exact = saturating_file
    session = RUNTIME.open(path, threads=1)
    default = session.by_default()
    assert np.array_equal(session.run({"x": x})["y"], exact)
    assert not np.array_equal(default.run({"x": x})["y"], exact)
    assert session.arithmetic == "int8 weights as uint8"


def test_files_that_do_not_load_with_exact_kernels_are_simulated(saturating_file, monkeypatch):
    path, x, exact = saturating_file
    create = onnxruntime.InferenceSession

    def refusing(file, options, **keywords):
        if options.get_session_config_entry("session.x64quantprecision") == "1":
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no such rewriting")
        return create(file, options, **keywords)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refusing)
    monkeypatch.setattr("edgekit.runtimes.onnxruntime.saturates", lambda: True)
    session = RUNTIME.open(path, threads=1)
    assert np.array_equal(session.run({"x": x})["y"], exact)
    assert session.arithmetic == "QDQ pairs in float32"
    assert session.by_default() is not None


def test_processors_that_do_not_saturate_need_no_second_session(saturating_file, monkeypatch):
    path, _, _ = saturating_file
    monkeypatch.setattr("edgekit.runtimes.onnxruntime.saturates", lambda: False)
    session = RUNTIME.open(path, threads=1)
    assert session.by_default() is None
    assert session.arithmetic == ""
