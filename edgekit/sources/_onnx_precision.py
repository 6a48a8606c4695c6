"""ONNX models in float16, bfloat16 or float64, rebuilt in float32, in which every target computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.sources._onnx_file import subgraphs

# The attributes that name the type of a node's result or of its arithmetic.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype", "softmax_precision", "stash_type")


def in_float32(model: Any) -> tuple[Any, list[str]]:
    """Rebuild a model in float32 if it is one in another floating-point type.

    It is one if an input is of such a type, or the larger part of the weights. Other models may have single float64
    constants, mostly in the arithmetic of sizes and positions, which need these digits.

    Args:
        model: The `onnx.ModelProto`, with all its weights in memory. It stays as it is.

    Returns:
        The rebuilt model, and the names of the types that it had, sorted; or the model itself and no names, where it is
        in float32 already or has weights that exceed float32.
    """
    import onnx
    from onnx.external_data_helper import _get_all_tensors as all_tensors

    others = _other_types()
    weights = [tensor for tensor in all_tensors(model) if tensor.data_type in (*others, onnx.TensorProto.FLOAT)]
    sizes = dict.fromkeys((*others, onnx.TensorProto.FLOAT), 0)
    for tensor in weights:
        sizes[tensor.data_type] += int(np.prod(tensor.dims, dtype=np.int64))
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.type.tensor_type.elem_type for value in model.graph.input if value.name not in names}
    if not inputs & set(others) and sum(sizes[kind] for kind in others) <= sizes[onnx.TensorProto.FLOAT]:
        return model, []
    rebuilt = onnx.ModelProto()
    rebuilt.CopyFrom(model)
    for tensor in all_tensors(rebuilt):
        if tensor.data_type in others and not _convert(tensor):
            return model, []
    for graph in _graphs(rebuilt.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _convert_type(value.type, others)
    for node in _nodes(rebuilt):
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in others:
                attribute.i = onnx.TensorProto.FLOAT
    found = {kind for kind, size in sizes.items() if size} | inputs
    return rebuilt, sorted(name for kind, name in others.items() if kind in found)


def _other_types() -> dict[int, str]:
    from onnx import TensorProto

    return {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}


def _convert(tensor: Any) -> bool:
    """Change a tensor to float32; return False, and leave it, if finite values would become infinite."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):  # looked for in the next line
        narrow = array.astype(np.float32)
    if (np.isinf(narrow) & ~np.isinf(array.astype(np.float64))).any():
        return False
    tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    return True


def _convert_type(kind: Any, others: dict[int, str]) -> None:
    """Change the type of a value, also inside of a sequence or an optional value."""
    from onnx import TensorProto

    which = kind.WhichOneof("value")
    if which == "tensor_type" and kind.tensor_type.elem_type in others:
        kind.tensor_type.elem_type = TensorProto.FLOAT
    elif which in ("sequence_type", "optional_type"):
        _convert_type(getattr(kind, which).elem_type, others)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and the graphs inside of its nodes."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)


def _nodes(model: Any) -> Iterator[Any]:
    """Yield all nodes, also those of inner graphs and of functions."""
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for inner in subgraphs(node):
                for graph in _graphs(inner):
                    yield from graph.node
