"""Operators of flatbuffers that stay in float beside integers, since they decide by exact values or mask."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from edgekit.core.numerics.exact_values import ExactValues, GraphOperation, Role, exact_values, is_mask
from edgekit.core.numerics.metrics import Array
from edgekit.tflite_files.graph import main_graph, op_name, parse_content, tensor_dtype

_DECIDES = frozenset(
    {
        "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "FLOOR", "CEIL", "ROUND", "SIGN",
        "FLOOR_DIV", "FLOOR_MOD", "ARG_MAX", "ARG_MIN", "TOPK_V2", "WHERE", "UNIQUE", "STABLEHLO_COMPARE",
    }
)  # fmt: skip
_FORWARDS = frozenset(
    {
        "RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SQUEEZE", "EXPAND_DIMS", "GATHER", "GATHER_ND", "PAD",
        "PADV2", "MIRROR_PAD", "CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "TILE", "BROADCAST_TO",
        "REVERSE_V2", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL", "SUM", "MEAN", "ADD", "SUB", "MUL", "DIV",
        "ABS", "NEG", "SQUARE", "SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "RELU_N1_TO_1",
        "SELECT", "SELECT_V2", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "CAST", "QUANTIZE", "DEQUANTIZE",
    }
)  # fmt: skip
# Only these hide a value by a constant: padding and concatenating leave the other values as they are.
_MASKS = frozenset({"ADD", "SUB", "MUL", "SELECT", "SELECT_V2", "MAXIMUM", "MINIMUM", "PADV2", "CONCATENATION"})


def find(content: bytes) -> tuple[Any, ExactValues]:
    """Find the operators of the main graph that integers would falsify.

    Args:
        content: A flatbuffer, in float or quantized.

    Returns:
        The `ModelT`, and the indices of its main graph's operators; tensors are named by their index.
    """
    model = parse_content(content)
    graph = main_graph(model)
    operations = [_operation(model, graph, op) for op in graph.operators or []]
    return model, exact_values(operations, [str(int(index)) for index in graph.inputs])


def _operation(model: Any, graph: Any, op: Any) -> GraphOperation:
    name = op_name(model, op)
    constants = {int(index): _constant(model, graph.tensors[index]) for index in op.inputs if index >= 0}
    role = Role.DECIDES if name in _DECIDES else Role.FORWARDS if name in _FORWARDS else Role.APPROXIMATES
    if name == "CAST" and _is_float(graph, op.inputs[0]) and not _is_float(graph, op.outputs[0]):
        role = Role.DECIDES
    return GraphOperation(
        role,
        tuple(str(index) for index, value in constants.items() if value is None),
        tuple(str(int(index)) for index in op.outputs),
        name in _MASKS and any(value is not None and is_mask(value) for value in constants.values()),
    )


def _is_float(graph: Any, index: int) -> bool:
    tensor = graph.tensors[index]
    return tensor_dtype(tensor).startswith("float") or _scale(tensor) is not None


def _scale(tensor: Any) -> Array | None:
    parameters = tensor.quantization
    scale = None if parameters is None else parameters.scale
    return None if scale is None or not len(scale) else np.asarray(scale, np.float32)


def _constant(model: Any, tensor: Any) -> Array | None:
    """Return the value of a constant, its magnitude if it is quantized; None for a tensor that is computed."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    dtype, scale = tensor_dtype(tensor), _scale(tensor)
    if dtype in ("int4", "string") or not hasattr(np, dtype):
        return np.zeros(0, np.float32)
    values = np.frombuffer(bytes(bytearray(data)), dtype)
    if scale is None or len(scale) > 1:
        return values if scale is None else np.zeros(0, np.float32)
    zero_point = float(tensor.quantization.zeroPoint[0])
    dequantized: Array = np.multiply(values.astype(np.float32) - zero_point, float(scale[0]))
    return dequantized


def keep(builder: Any, content: bytes) -> bool:
    """Tell ai-edge-quantizer to leave the operators in float that integers would falsify.

    Args:
        builder: The `Quantizer` of the file, with a recipe.
        content: The float flatbuffer.

    Returns:
        Whether there are such operators.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    model, exact = find(content)
    graph = main_graph(model)
    for index in sorted(exact.operations):
        op = graph.operators[index]
        operation = utils.TFL_OP_CODE_TO_NAME.get(model.operatorCodes[op.opcodeIndex].builtinCode)
        if operation is not None:  # what the quantizer does not support stays in float anyway
            _leave(builder, utils.get_op_scope(op, graph.tensors), operation)
    if exact.tensors.intersection(str(int(index)) for index in graph.inputs if _is_float(graph, index)):
        first, _ = utils.get_subgraph_input_output_operators(graph)
        _leave(builder, utils.get_op_scope(first, graph.tensors), first.op_key)
    return bool(exact)


def _leave(builder: Any, scope: str, operation: Any) -> None:
    builder.update_quantization_recipe(f"^{re.escape(scope)}$", operation, algorithm_key="no_quantize")
