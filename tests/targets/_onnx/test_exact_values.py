"""Nodes that compare exact values read them unquantized."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.contracts.target import ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.targets._onnx import exact_values, mixed_precision

SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 3), "float32"),))


def masked_product(path: Path) -> None:
    """Write y = (x · W) where the first feature differs from 0.3, and 0 elsewhere."""
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    constants = {"w": weights, "padding": np.float32(0.3), "first": np.array([0])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
        helper.make_node("Gather", ["x", "first"], ["feature"], axis=1, name="feature"),
        helper.make_node("Equal", ["feature", "padding"], ["padded"], name="compare"),
        helper.make_node("Not", ["padded"], ["kept"], name="invert"),
        helper.make_node("Cast", ["kept"], ["mask"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Mul", ["product", "mask"], ["y"], name="apply"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)


def read_by_the_gather(tmp_path: Path) -> str:
    masked_product(tmp_path / "float.onnx")
    samples = {"x": np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)}
    mixed_precision.quantize(
        tmp_path / "float.onnx", SIGNATURE, ConversionRequest("int8", tmp_path, samples), tmp_path / "int8.onnx"
    )
    model = onnx.load(tmp_path / "int8.onnx")
    nodes = {node.name: node for node in model.graph.node}
    assert nodes["product"].input[0] != "x"  # quantized
    return str(nodes["feature"].input[0])


def test_a_comparison_reads_the_input_itself(tmp_path: Path):
    assert read_by_the_gather(tmp_path) == "x"


def test_the_quantizer_still_gives_excluded_nodes_the_quantized_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When this fails, `restore_inputs` can go."""
    monkeypatch.setattr(exact_values, "restore_inputs", lambda *_arguments: None)
    assert read_by_the_gather(tmp_path) != "x"
