"""Rewriting of flatbuffers into float32: dequantized weights, and no quantization in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.affine_quantization import dequantize
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Quantization
from edgekit.tflite_files.constants import constant_of
from edgekit.tflite_files.ends import add_buffer, add_operator_code
from edgekit.tflite_files.graph import inline_buffers, op_name, pack, parse_content, schema, tensor_dtype, text

# The types of quantized weights and activations, and of biases, which have a scale as well.
_INTEGERS = ("int4", "int8", "uint8", "int16", "int32", "int64")
_BIASES = frozenset({"int32", "int64"})
# These only change the type of a tensor: nothing is left of them in float32.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class FloatFile:
    """A flatbuffer in float32.

    Attributes:
        content: The flatbuffer.
        types: The types of weights and activations that were replaced, such as `int8`; those of biases only follow.
        activations: Whether activations were quantized, not weights alone.
    """

    content: bytes
    types: frozenset[str]
    activations: bool


def in_float32(content: bytes) -> FloatFile:
    """Rewrite a flatbuffer so that weights and activations are float32.

    Quantized constants become the real values that they stand for. Activations lose their integers, hence the rounding
    and the saturation of each layer.

    Args:
        content: The flatbuffer, which `graph.parse` accepts.

    Returns:
        The flatbuffer in float32; the same bytes if it is in float32 already.

    Raises:
        InputError: A tensor is sparse, or quantized in a way that cannot be undone.
    """
    model = parse_content(inline_buffers(content))
    replaced: set[str] = set()
    quantized_activations = False
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            dtype = tensor_dtype(tensor)
            if tensor.sparsity is not None:
                raise InputError(
                    f"the weights '{text(tensor.name)}' are sparse; convert the model without pruned weights"
                )
            if dtype == "float16" or (dtype in _INTEGERS and _is_quantized(tensor)):
                replaced.add(dtype)
                constant = _to_float(model, tensor, dtype)
                quantized_activations |= not constant and dtype != "float16"
    if not replaced:
        return FloatFile(content, frozenset(), activations=False)
    for graph in model.subgraphs:
        _drop_conversions(model, graph)
        for op in graph.operators or []:
            _plain_options(op)
    for graph in model.subgraphs:
        _drop_unused_tensors(model, graph)
    _drop_unread_data(model)
    return FloatFile(pack(model), frozenset(replaced - _BIASES), quantized_activations)


def _drop_unused_tensors(model: Any, graph: Any) -> None:
    """Remove tensors that no operator has any more: interpreters give them no memory, and quantizers read them."""
    sides = [graph.inputs, graph.outputs, *(side for op in graph.operators or [] for side in (op.inputs, op.outputs))]
    used = sorted({int(index) for side in sides for index in side if index >= 0})
    places = {old: new for new, old in enumerate(used)} | {-1: -1}

    def moved(indices: Any) -> Any:
        return np.array([places[int(index)] for index in indices], np.int32)

    graph.tensors = [graph.tensors[index] for index in used]
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for op in graph.operators or []:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
    for definition in model.signatureDefs or ():
        if model.subgraphs[definition.subgraphIndex] is graph:
            for entry in (*definition.inputs, *definition.outputs):
                entry.tensorIndex = places[int(entry.tensorIndex)]


def _drop_unread_data(model: Any) -> None:
    """Empty the buffers that no tensor reads any more; they stay, since buffers are named by their place."""
    read = {int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors}
    read |= {int(entry.buffer) for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def _is_quantized(tensor: Any) -> bool:
    parameters = tensor.quantization
    if parameters is None:
        return False
    return bool((parameters.scale is not None and len(parameters.scale)) or parameters.details is not None)


def _to_float(model: Any, tensor: Any, dtype: str) -> bool:
    """Make a tensor float32; return whether it is a constant, whose values are converted."""
    stored = constant_of(model, tensor)
    if stored is not None:
        values = stored.astype(np.float32) if dtype == "float16" else _real_values(tensor, stored)
        tensor.buffer = add_buffer(model, values)  # other tensors may share the old one, with other scales
    tensor.type = schema().TensorType.FLOAT32
    tensor.quantization = None
    return stored is not None


def _real_values(tensor: Any, stored: Array) -> Array:
    parameters = tensor.quantization
    if parameters.details is not None:
        raise InputError(
            f"the weights '{text(tensor.name)}' are quantized in blocks, which edgekit does not undo; export the float"
            " model that this file was made of"
        )
    axis = int(parameters.quantizedDimension) if len(parameters.scale) > 1 else None
    zeros = parameters.zeroPoint if parameters.zeroPoint is not None else []
    zero_points = tuple(int(zero) for zero in zeros) or (0,) * len(parameters.scale)
    if axis is not None and len(zero_points) == 1:  # one zero point for all channels
        zero_points *= len(parameters.scale)
    return dequantize(stored, Quantization(tuple(map(float, parameters.scale)), zero_points, axis))


def _drop_conversions(model: Any, graph: Any) -> None:
    """Remove the operators that convert between float32 and what was quantized; readers take their input."""
    inputs = {int(index) for index in graph.inputs}
    outputs = {int(index) for index in graph.outputs}
    sources: dict[int, int] = {}
    kept = []
    for op in graph.operators or []:
        op.inputs = np.array([sources.get(int(index), int(index)) for index in op.inputs], np.int32)
        if op_name(model, op) not in _CONVERSIONS:
            kept.append(op)
            continue
        read, written = int(op.inputs[0]), int(op.outputs[0])
        is_weight = constant_of(model, graph.tensors[read]) is not None
        if written in outputs and (read in inputs or read in outputs or is_weight):
            kept.append(_copy(model, graph, op))  # each output needs a tensor of its own
            continue
        if written in outputs:
            graph.tensors[read].name = graph.tensors[written].name
        sources[written] = read
    graph.operators = kept
    _rename(model, graph, sources)


def _rename(model: Any, graph: Any, sources: Mapping[int, int]) -> None:
    """Make outputs of the graph and of its signatures those tensors that took the place of others."""
    graph.outputs = np.array([sources.get(int(index), int(index)) for index in graph.outputs], np.int32)
    for definition in model.signatureDefs or ():
        if model.subgraphs[definition.subgraphIndex] is graph:
            for entry in definition.outputs:
                entry.tensorIndex = sources.get(int(entry.tensorIndex), int(entry.tensorIndex))


def _copy(model: Any, graph: Any, op: Any) -> Any:
    """Return an operator that copies the input of another to its output: a reshape to the same shape."""
    tables = schema()
    copy = tables.OperatorT()
    copy.opcodeIndex = add_operator_code(model, "RESHAPE", 1)
    copy.inputs, copy.outputs = op.inputs, op.outputs
    copy.builtinOptionsType = tables.BuiltinOptions.ReshapeOptions
    copy.builtinOptions = tables.ReshapeOptionsT()
    shape = graph.tensors[int(op.outputs[0])].shape
    copy.builtinOptions.newShape = [] if shape is None else [int(dim) for dim in shape]
    return copy


def _plain_options(op: Any) -> None:
    """Remove what only quantized kernels read."""
    if getattr(op.builtinOptions, "asymmetricQuantizeInputs", False):
        op.builtinOptions.asymmetricQuantizeInputs = False
    op.intermediates = []  # the scales of an integer LSTM's inner tensors
