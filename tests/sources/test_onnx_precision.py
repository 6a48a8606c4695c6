"""ONNX models in other floating-point types than float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.contracts.source import UserModel
from edgekit.sources.onnx import SOURCE

TYPES = {
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float64": (TensorProto.DOUBLE, np.float64),
}


def dense(kind: str, weights=None, io: str | None = None):
    """`relu(x @ w)` in one type, with casts where inputs and outputs have another, in a branch that is always taken."""
    code, dtype = TYPES[kind]
    outer = TensorProto.FLOAT if io == "float32" else code
    weights = np.random.default_rng(0).normal(size=(6, 4)) if weights is None else weights
    branch = helper.make_graph(
        [
            helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0, dtype), "zero")),
            helper.make_node("Max", ["p", "zero"], ["m"]),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("m", code, None)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["x_inner"], to=code),
            helper.make_node("MatMul", ["x_inner", "w"], ["p"]),
            helper.make_node("If", ["true"], ["r"], then_branch=branch, else_branch=branch),
            helper.make_node("Cast", ["r"], ["y"], to=outer),
        ],
        "net",
        [helper.make_tensor_value_info("x", outer, ["batch", 6])],
        [helper.make_tensor_value_info("y", outer, ["batch", 4])],
        [numpy_helper.from_array(weights.astype(dtype), "w"), numpy_helper.from_array(np.array(True), "true")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), weights.astype(dtype)


def imported(model, folder, **options):
    """The signature, the notes and the loaded model of an import."""
    onnx.save(model, folder / "given.onnx")
    user_model = UserModel(folder / "given.onnx", **options)
    file, signature = SOURCE.import_model(user_model, folder)
    return signature, user_model.notes, SOURCE.load(folder / file, signature, None)


@pytest.mark.parametrize("io", [None, "float32"])
@pytest.mark.parametrize("kind", TYPES)
def test_a_model_in_another_type_is_rebuilt_in_float32(kind, io, tmp_path):
    model, weights = dense(kind, io=io)
    signature, notes, loaded = imported(model, tmp_path)
    assert notes == [f"the network computes in {kind}: it was rebuilt in float32"]
    assert [spec.dtype for spec in (*signature.inputs, *signature.outputs)] == ["float32", "float32"]
    x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    (y,) = loaded._run([x])
    np.testing.assert_allclose(y, np.maximum(x @ weights.astype(np.float32), 0), atol=1e-6)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


def test_a_comparison_keeps_the_types_of_the_file(tmp_path):
    model, _ = dense("float16")
    signature, notes, _ = imported(model, tmp_path, as_stored=True)
    assert (notes, signature.inputs[0].dtype) == ([], "float16")


def test_float64_arithmetic_of_a_float32_model_stays(tmp_path):
    # 2**24 + 1 has no float32: sizes and positions are computed in float64 by some exporters.
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["large"], ["precise"], to=TensorProto.DOUBLE),
            helper.make_node("Add", ["precise", "one"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Sub", ["whole", "large"], ["difference"]),
            helper.make_node("Cast", ["difference"], ["d"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "w"], ["p"]),
            helper.make_node("Add", ["p", "d"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(np.ones(4, np.float32), "w"),
            numpy_helper.from_array(np.array(1.0), "one"),
            numpy_helper.from_array(np.array(2**24), "large"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    _, notes, loaded = imported(model, tmp_path)
    assert notes == []
    np.testing.assert_array_equal(loaded._run([np.zeros((1, 4), np.float32)])[0], np.ones((1, 4)))


def test_weights_beyond_float32_keep_the_model_as_it_is(tmp_path):
    model, _ = dense("float64", weights=np.full((6, 4), 1e300))
    signature, notes, _ = imported(model, tmp_path)
    assert (notes, signature.inputs[0].dtype) == ([], "float64")
