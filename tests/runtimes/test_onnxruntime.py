"""ONNX Runtime as edgekit opens it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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
