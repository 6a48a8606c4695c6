"""Operators of ONNX Runtime's own domain, and integer arithmetic, judged by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.sources.bridges._onnx.graph import build

RNG = np.random.default_rng(0)
Arrays = dict[str, np.ndarray[Any, Any]]


def f32(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def integers(kind: str, *shape: int) -> Any:
    # Half the range: ONNX Runtime's x86 kernels without VNNI saturate sums of two full products at 16 bits.
    low, high = {"u1": (64, 192), "i1": (-64, 64), "i4": (-3000, 3000)}[kind]
    return RNG.integers(low, high, shape).astype(kind)


def results(node: Any, inputs: Arrays, weights: Arrays, *, outputs: int = 1) -> tuple[list[Any], list[Any]]:
    """Return a node's outputs by ONNX Runtime, and by the bridge."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    graph = helper.make_graph(
        [node],
        "g",
        values,
        [onnx.ValueInfoProto(name=name) for name in list(node.output)[:outputs]],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = list(node.output)[:outputs]
    with torch.no_grad():
        module = build(model, list(inputs), names)
        result = module(*map(torch.from_numpy, inputs.values()))
    actual = [tensor.numpy() for tensor in (result if isinstance(result, tuple) else (result,))]
    return session.run(names, inputs), actual


def contrib(op_type: str, inputs: list[str], outputs: tuple[str, ...] = ("y",), **attributes: Any) -> Any:
    return helper.make_node(op_type, inputs, list(outputs), domain="com.microsoft", **attributes)


SCALES = {
    "xs": np.float32(0.03),
    "xz": np.uint8(120),
    "ys": np.float32(0.05),
    "yz": np.uint8(130),
    "zs": np.float32(0.04),
    "zz": np.uint8(100),
}
SCALES = {name: np.asarray(value) for name, value in SCALES.items()}
X, Y = ["x", "xs", "xz"], ["y0", "ys", "yz"]


@pytest.mark.parametrize(
    ("node", "inputs", "weights"),
    [
        (contrib("QLinearAdd", [*X, *Y, "zs", "zz"]), {"x": integers("u1", 2, 5), "y0": integers("u1", 2, 5)}, {}),
        (contrib("QLinearMul", [*X, *Y, "zs", "zz"]), {"x": integers("u1", 2, 5), "y0": integers("u1", 2, 5)}, {}),
        (contrib("QLinearSigmoid", [*X, "ys", "yz"]), {"x": integers("u1", 2, 5)}, {}),
        (contrib("QLinearLeakyRelu", [*X, "ys", "yz"], alpha=0.2), {"x": integers("u1", 2, 5)}, {}),
        (contrib("QLinearGlobalAveragePool", [*X, "ys", "yz"]), {"x": integers("u1", 2, 3, 4, 4)}, {}),
        (
            contrib("QLinearGlobalAveragePool", [*X, "ys", "yz"], channels_last=1),
            {"x": integers("u1", 2, 4, 4, 3)},
            {},
        ),
        (
            contrib("QLinearAveragePool", [*X, "ys", "yz"], kernel_shape=[2, 2], strides=[2, 2]),
            {"x": integers("u1", 2, 3, 4, 4)},
            {},
        ),
        (
            contrib("QLinearConcat", ["zs", "zz", *X, *Y], axis=1),
            {"x": integers("u1", 2, 5), "y0": integers("u1", 2, 3)},
            {},
        ),
        (
            contrib("QGemm", [*X, "w", "ws", "wz", "b", "ys", "yz"], transB=1),
            {"x": integers("u1", 2, 300)},
            {
                "w": integers("i1", 4, 300),
                "ws": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
                "wz": np.zeros(4, np.int8),
                "b": integers("i4", 4),
            },
        ),
        (
            helper.make_node("QLinearMatMul", [*X, "w", "ws", "wz", "ys", "yz"], ["y"]),
            {"x": integers("u1", 2, 600)},
            {"w": integers("u1", 600, 4), "ws": np.asarray(np.float32(0.002)), "wz": np.asarray(np.uint8(125))},
        ),
        (
            # 40 channels of 3x3: more products than one exact sum in float32 takes.
            helper.make_node("QLinearConv", [*X, "w", "ws", "wz", "ys", "yz", "b"], ["y"], pads=[1, 1, 1, 1]),
            {"x": integers("u1", 2, 40, 5, 5)},
            {
                "w": integers("i1", 4, 40, 3, 3),
                "ws": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
                "wz": np.zeros(4, np.int8),
                "b": integers("i4", 4),
            },
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_quantized_operators_give_the_same_integers(node, inputs, weights):
    (expected,), (actual,) = results(node, inputs, {**SCALES, **weights})
    assert actual.dtype == expected.dtype
    difference = np.abs(actual.astype(int) - expected.astype(int))
    # A sum that lies between two integers is rounded either way, where ONNX Runtime multiplies in another order.
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.1


def bits(count: int, *shape: int) -> Any:
    return RNG.integers(0, 256, (*shape[:-1], shape[-1] * count // 8)).astype(np.uint8)


@pytest.mark.parametrize(
    ("node", "inputs", "weights"),
    [
        (
            contrib("MatMulNBits", ["x", "w", "s", "z"], K=40, N=6, bits=4, block_size=16),
            {"x": f32(3, 40)},
            {"w": bits(4, 6, 3, 16), "s": np.abs(f32(18)), "z": bits(4, 6 * 2 * 2)},
        ),
        (
            contrib("MatMulNBits", ["x", "w", "s"], K=32, N=6, bits=4, block_size=32),
            {"x": f32(2, 3, 32)},
            {"w": bits(4, 6, 1, 32), "s": np.abs(f32(6))},
        ),
        (
            contrib("MatMulIntegerToFloat", ["x", "w", "xs", "ws", "xz", "", "b"]),
            {"x": integers("u1", 2, 300)},
            {"w": integers("i1", 300, 4), "ws": np.asarray(np.float32(0.1)), "b": f32(4)},
        ),
        (
            contrib("DynamicQuantizeMatMul", ["x", "w", "ws", "", "b"]),
            {"x": f32(2, 300)},
            {"w": integers("i1", 300, 4), "ws": np.asarray(np.float32(0.1)), "b": f32(4)},
        ),
        (contrib("FusedMatMul", ["x", "w"], alpha=0.5, transB=1), {"x": f32(2, 3, 8)}, {"w": f32(6, 8)}),
        (
            contrib("FusedConv", ["x", "w", "b"], activation="LeakyRelu", activation_params=[0.1], pads=[1] * 4),
            {"x": f32(1, 3, 6, 6)},
            {"w": f32(4, 3, 3, 3), "b": f32(4)},
        ),
        (contrib("FusedGemm", ["x", "w", "b"], activation="Relu"), {"x": f32(2, 8)}, {"w": f32(8, 4), "b": f32(4)}),
        (contrib("BiasGelu", ["x", "b"]), {"x": f32(2, 8)}, {"b": f32(8)}),
        (contrib("Gelu", ["x"]), {"x": f32(2, 8)}, {}),
        (contrib("FastGelu", ["x", "b"]), {"x": f32(2, 8)}, {"b": f32(8)}),
        (contrib("QuickGelu", ["x"], alpha=1.5), {"x": f32(2, 8)}, {}),
        (
            contrib("SkipLayerNormalization", ["x", "y0", "g", "b", "c"], ("y", "", "", "sum"), epsilon=1e-3),
            {"x": f32(2, 3, 8), "y0": f32(2, 3, 8)},
            {"g": f32(8), "b": f32(8), "c": f32(8)},
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_float_operators_agree(node, inputs, weights):
    (expected,), (actual,) = results(node, inputs, {**SCALES, **weights})
    np.testing.assert_allclose(actual, expected, atol=2e-4 if "Gelu" in node.op_type else 2e-5, rtol=2e-4)


def branches(then_shape: tuple[int, ...] = (4, 3)) -> Any:
    """Return a model with an If whose condition is the sign of its input's sum."""
    sides = [
        helper.make_graph([helper.make_node("MatMul", ["x", weight], ["r"])], name, [], [onnx.ValueInfoProto(name="r")])
        for name, weight in (("then", "a"), ("else", "b"))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["c"]),
            helper.make_node("If", ["c"], ["y"], then_branch=sides[0], else_branch=sides[1]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [onnx.ValueInfoProto(name="y")],
        [
            numpy_helper.from_array(f32(*then_shape), "a"),
            numpy_helper.from_array(f32(4, 3), "b"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_both_branches_of_an_if_are_computed_and_selected():
    model = branches()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    module = build(model, ["x"], ["y"])
    x = f32(1, 4)
    for sample in (x, -x):
        with torch.no_grad():
            actual = module(torch.from_numpy(sample)).numpy()
        np.testing.assert_allclose(actual, session.run(None, {"x": sample})[0], atol=1e-6)


def test_branches_of_different_shapes_are_refused():
    with pytest.raises(RuntimeError, match="whose branches return tensors of different shapes"):
        build(branches((4, 5)), ["x"], ["y"])(torch.zeros(1, 4))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_gathering_by_sample_holds_for_every_batch():
    """A trace records no range over the samples: its length would be that of the example."""
    x, index = f32(3, 4, 5, 2), RNG.integers(-4, 4, (3, 6, 2))
    node = helper.make_node("GatherND", ["x", "index"], ["y"], batch_dims=1)
    (expected,), (actual,) = results(node, {"x": x, "index": index}, {})
    np.testing.assert_array_equal(actual, expected)
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 5, 2]),
        helper.make_tensor_value_info("index", TensorProto.INT64, ["batch", 6, 2]),
    ]
    graph = helper.make_graph([node], "g", values, [onnx.ValueInfoProto(name="y")])
    module = build(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), ["x", "index"], ["y"]
    )
    traced = torch.jit.trace(module, (torch.from_numpy(x[:2]), torch.from_numpy(index[:2])))
    np.testing.assert_array_equal(traced(torch.from_numpy(x), torch.from_numpy(index)).numpy(), expected)
