"""Values of constant tensors in flatbuffers."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.tflite_files.graph import is_weight, tensor_dtype, text


def constant_of(model: Any, tensor: Any) -> Array | None:
    """Return the values of a constant.

    Args:
        model: The `ModelT`, with its weights inside the flatbuffer.
        tensor: The `TensorT`.

    Returns:
        The values in the tensor's type and shape, those of int4 as int8; None for a tensor that is computed, or whose
        type numpy does not have.
    """
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    shape = [] if tensor.shape is None else [int(dim) for dim in tensor.shape]
    content, dtype, count = np.asarray(data, np.uint8).tobytes(), tensor_dtype(tensor), int(np.prod(shape))
    if dtype == "int4":
        return _unpacked_int4(content, count).reshape(shape)
    try:
        stored = np.dtype(dtype).newbyteorder("<")
    except TypeError:
        return None
    return np.frombuffer(content, stored, count).astype(np.dtype(dtype)).reshape(shape)


def parameters_of(model: Any) -> dict[str, Array]:
    """Return the weights of all subgraphs.

    Args:
        model: The `ModelT`, with its weights inside the flatbuffer.

    Returns:
        The values as they are stored, by the index of the subgraph and the tensor's name.
    """
    parameters: dict[str, Array] = {}
    for index, graph in enumerate(model.subgraphs):
        for position, tensor in enumerate(graph.tensors):
            values = constant_of(model, tensor) if is_weight(model, tensor) else None
            if values is not None:
                name = f"{index}/{text(tensor.name)}" if index else text(tensor.name)
                parameters[name if name not in parameters else f"{name} ({position})"] = values
    return parameters


def _unpacked_int4(content: bytes, count: int) -> Array:
    """Return int4 values that are stored in pairs, the first of each in the lower half of its byte."""
    pairs = np.frombuffer(content, np.uint8)
    halves = np.stack([pairs & 0xF, pairs >> 4], axis=-1).reshape(-1)[:count].astype(np.int8)
    signed: Array = np.where(halves > 7, halves - 16, halves).astype(np.int8)
    return signed
