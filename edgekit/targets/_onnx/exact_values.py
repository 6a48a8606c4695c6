"""Nodes of ONNX graphs that stay in float beside integers, since they decide by exact values or mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.numerics.exact_values import ExactValues, GraphOperation, Role, exact_values, is_mask
from edgekit.targets._onnx.graph import parse

_DECIDES = frozenset(
    {
        "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Floor", "Ceil", "Round", "Sign", "Mod", "ArgMax",
        "ArgMin", "TopK", "NonZero", "Unique", "OneHot", "IsNaN", "IsInf",
    }
)  # fmt: skip
_FORWARDS = frozenset(
    {
        "Reshape", "Flatten", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Gather", "GatherElements", "GatherND",
        "Pad", "Concat", "Split", "Tile", "Expand", "Identity", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean",
        "ReduceL1", "Add", "Sub", "Mul", "Div", "Abs", "Neg", "Max", "Min", "Clip", "Relu", "Where", "And", "Or", "Not",
        "Xor", "Cast", "Dropout",
    }
)  # fmt: skip
# Only these hide a value by a constant: padding and concatenating leave the other values as they are.
_MASKS = frozenset({"Add", "Sub", "Mul", "Where", "Max", "Min"})


def find(model: Any) -> ExactValues:
    """Find the nodes of a graph that integers would falsify.

    Args:
        model: The `ModelProto`, with inferred types.

    Returns:
        Indices of nodes, and names of tensors.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    masks = {name for name, tensor in constants.items() if is_mask(numpy_helper.to_array(tensor))}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    operations = [
        GraphOperation(
            _role(node, types),
            tuple(name for name in node.input if name and name not in constants),
            tuple(node.output),
            node.op_type in _MASKS and bool(masks.intersection(node.input)),
        )
        for node in graph.node
    ]
    return exact_values(operations, [value.name for value in graph.input if value.name not in constants])


def _role(node: Any, types: dict[str, int]) -> Role:
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    if node.domain not in ("", "ai.onnx"):
        return Role.APPROXIMATES
    if node.op_type in _DECIDES:
        return Role.DECIDES
    if node.op_type == "Cast":
        to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
        # A type that was not inferred may be that of a float, which the cast then turns into an index.
        return Role.DECIDES if to not in floats and types.get(node.input[0], floats[0]) in floats else Role.FORWARDS
    return Role.FORWARDS if node.op_type in _FORWARDS else Role.APPROXIMATES


def restore_inputs(path: Path, prepared: Any, names: dict[str, Any], exact: ExactValues) -> None:
    """Let the nodes that stay in float read what they read before the quantization.

    ONNX Runtime's quantizer puts a quantized copy of a tensor in front of all nodes that read it, the excluded ones
    too (1.32).

    Args:
        path: The quantized file, which is overwritten.
        prepared: The graph before the quantization.
        names: The nodes that stay in float by name, as they were before.
        exact: The names of the tensors to restore.
    """
    model = parse(path)
    producers = {output: node for node in model.graph.node for output in node.output}
    present = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    constants = {tensor.name: tensor for tensor in prepared.graph.initializer}
    for node in model.graph.node:
        if node.name not in names:
            continue
        for index, name in enumerate(names[node.name].input):
            if name in constants and name not in present:
                model.graph.initializer.append(constants[name])
                present.add(name)
            if name in exact.tensors:
                node.input[index] = _unquantized(name, producers)
            elif name in constants:
                node.input[index] = name
    path.write_bytes(model.SerializeToString(deterministic=True))


def _unquantized(name: str, producers: dict[str, Any]) -> str:
    """Return the tensor that a quantized copy of the name was made of, or the name if it has kept its own."""
    # An output of the graph gives its name to its copy.
    last = producers.get(name)
    if last is None or last.op_type != "DequantizeLinear":
        return name
    first = producers.get(last.input[0])
    return str(first.input[0]) if first is not None and first.op_type == "QuantizeLinear" else name
