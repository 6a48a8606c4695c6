"""Changes of a flatbuffer's inputs and outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.tflite_files.constants import constant_of
from edgekit.tflite_files.graph import ends, main_graph, op_name, pack, parse_content, schema, text


def with_constants(content: bytes, values: Mapping[str, Array]) -> bytes:
    """Make inputs constants.

    Args:
        content: The flatbuffer, with its weights inside.
        values: The values by name of the input.

    Returns:
        The flatbuffer without these inputs.
    """
    model = parse_content(content)
    graph = main_graph(model)
    indices = {index: values[spec.name] for spec, index in ends(model)[0] if spec.name in values}
    for index, array in indices.items():
        tensor = graph.tensors[index]
        tensor.buffer = add_buffer(model, array)
        tensor.shape, tensor.shapeSignature = np.array(array.shape, np.int32), None
    graph.inputs = [int(index) for index in graph.inputs if int(index) not in indices]
    for definition in model.signatureDefs or ():
        definition.inputs = [entry for entry in definition.inputs if int(entry.tensorIndex) not in indices]
    return pack(model)


def with_shapes(content: bytes, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """Fix the shapes of inputs.

    Args:
        content: The flatbuffer, with its weights inside.
        shapes: The shape by name of the input.

    Returns:
        The flatbuffer without unknown dimensions; the same bytes if it has none.
    """
    model = parse_content(content)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    unknown = [tensor for tensor in tensors if tensor.shapeSignature is not None and len(tensor.shapeSignature)]
    if not unknown:
        return content
    for tensor in unknown:  # interpreters infer the shapes of the others anew
        tensor.shapeSignature = None
    for spec, index in ends(model)[0]:
        main_graph(model).tensors[index].shape = np.array(shapes[spec.name], np.int32)
    return pack(model)


def with_signature(content: bytes) -> bytes:
    """Give a file a signature, whose names are those of its tensors.

    Args:
        content: The flatbuffer, with its weights inside.

    Returns:
        The flatbuffer with a signature; the same bytes if it has one.
    """
    model = parse_content(content)
    if model.signatureDefs:
        return content
    tables = schema()
    definition = tables.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = b"serving_default", 0
    definition.inputs, definition.outputs = ([_entry(spec.name, index) for spec, index in side] for side in ends(model))
    model.signatureDefs = [definition]
    return pack(model)


def _entry(name: str, index: int) -> Any:
    entry = schema().TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def permuted(content: bytes, inputs: Sequence[Permutation | None], outputs: Sequence[Permutation | None]) -> bytes:
    """Put transposes in front of inputs and behind outputs.

    Args:
        content: The flatbuffer, with its weights inside.
        inputs: For each input the permutation from its new to its old dimensions, or None.
        outputs: For each output the permutation from its old to its new dimensions, or None.

    Returns:
        The flatbuffer, whose inputs and outputs keep their names.
    """
    model = parse_content(content)
    graph = main_graph(model)
    ins, outs = ends(model)
    before, after = [], []
    for (_, index), order in zip(ins, inputs, strict=True):
        if order is not None:
            new = _reordered(graph, index, tuple(int(position) for position in np.argsort(order)))
            before.append(_transpose(model, graph, new, index, order))
            _replace(model, graph, index, new, "inputs")
    for (_, index), order in zip(outs, outputs, strict=True):
        if order is not None:
            new = _reordered(graph, index, order)
            after.append(_transpose(model, graph, index, new, order))
            _replace(model, graph, index, new, "outputs")
    graph.operators = [*before, *(graph.operators or []), *after]
    return pack(model)


def layouts(model: Any) -> dict[str, str]:
    """Return the layouts of images that converters have transposed, such as those of PyTorch models.

    Args:
        model: The `ModelT`, with its weights inside the flatbuffer.

    Returns:
        `NCHW` by name of each input that is only read by transposes to NHWC, and of each output of the reverse.
    """
    graph = main_graph(model)
    inputs, outputs = ends(model)
    operators = graph.operators or []
    found: dict[str, str] = {}
    for spec, index in inputs:
        readers = [op for op in operators if index in map(int, op.inputs)]
        if readers and all(_order(model, graph, op) == _TO_LAST for op in readers):
            found[spec.name] = "NCHW"
    for spec, index in outputs:
        writers = [op for op in operators if index in map(int, op.outputs)]
        if writers and all(_order(model, graph, op) == _TO_FIRST for op in writers):
            found[spec.name] = "NCHW"
    return found


_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def _order(model: Any, graph: Any, op: Any) -> Permutation | None:
    """Return the permutation of a transpose, or None for other operators."""
    if op_name(model, op) != "TRANSPOSE":
        return None
    order = constant_of(model, graph.tensors[int(op.inputs[1])])
    return None if order is None else tuple(int(index) for index in order)


def _reordered(graph: Any, index: int, order: Permutation) -> int:
    """Add a tensor with the dimensions of another in another order; return its index."""
    inner = graph.tensors[index]
    outer = copy.deepcopy(inner)
    outer.buffer = 0  # of a tensor without constant data
    outer.shape = np.array([inner.shape[position] for position in order], np.int32)
    if inner.shapeSignature is not None and len(inner.shapeSignature):
        outer.shapeSignature = np.array([inner.shapeSignature[position] for position in order], np.int32)
    # Users look tensors up by name: the outer one keeps it.
    inner.name = f"{text(inner.name)}_inner".encode()
    graph.tensors.append(outer)
    return len(graph.tensors) - 1


def _replace(model: Any, graph: Any, old: int, new: int, side: str) -> None:
    setattr(graph, side, [new if int(index) == old else int(index) for index in getattr(graph, side)])
    for definition in model.signatureDefs or ():
        for entry in getattr(definition, side):
            if int(entry.tensorIndex) == old:
                entry.tensorIndex = new


def _transpose(model: Any, graph: Any, read: int, written: int, order: Permutation) -> Any:
    tables = schema()
    tensor = tables.TensorT()
    tensor.name = f"{text(graph.tensors[written].name)}_order_{len(graph.tensors)}".encode()
    tensor.type, tensor.shape = tables.TensorType.INT32, np.array([len(order)], np.int32)
    tensor.buffer = add_buffer(model, np.array(order, np.int32))
    graph.tensors.append(tensor)
    op = tables.OperatorT()
    # Version 4 knows every type and up to six dimensions.
    op.opcodeIndex = add_operator_code(model, "TRANSPOSE", 4)
    op.inputs, op.outputs = np.array([read, len(graph.tensors) - 1], np.int32), np.array([written], np.int32)
    op.builtinOptionsType = tables.BuiltinOptions.TransposeOptions
    op.builtinOptions = tables.TransposeOptionsT()
    return op


def add_buffer(model: Any, array: Array) -> int:
    """Add constant data.

    Args:
        model: The `ModelT`.
        array: The values.

    Returns:
        The index of the buffer.
    """
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def add_operator_code(model: Any, name: str, version: int) -> int:
    """Add an operator code.

    Args:
        model: The `ModelT`.
        name: The name of the builtin operator, whose code is below 127.
        version: The version of the operator.

    Returns:
        The index of the code.
    """
    code = schema().OperatorCodeT()
    # The older field is one byte, and counts up to 127.
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema().BuiltinOperator, name)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
