"""The two kinds of values in a running graph, and the way from one to the other.

A value is a torch tensor, or it stays on the host: constants, and whatever is computed from shapes. A host value is a
numpy array; where a dimension is symbolic, its dtype is object and its elements are torch.SymInts. Shape arithmetic
that stays on the host gives torch.export the sizes it needs, where tensors would only give it data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[Any]

# numpy has no such types of its own: torch reads their bits as these integers.
_BITS = {"bfloat16": "int16", **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz"), "uint8")}
_BITS |= dict.fromkeys(("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), "uint8")
# torch has no arithmetic, nor casts, for anything narrower than eight bits.
_WIDER = {"int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}
_SMALL = 16
"""Integer constants of more elements than this are data; fewer are a shape, axes, pads."""


@dataclass(frozen=True)
class Constant:
    """A value that is the same in every run; `tensor` is the module's buffer for it, over the same memory, if any."""

    array: Host
    tensor: Any = None


def is_data(array: Host) -> bool:
    """Whether a constant is a weight, and so belongs among the module's buffers."""
    return array.dtype != object and (_is_floating(array) or array.size > _SMALL)


def _is_floating(array: Host) -> bool:
    return array.dtype.kind in "fc" or array.dtype.name in _BITS


def torch_dtype(element_type: int) -> Any:
    """The torch.dtype for a number of onnx.TensorProto.DataType. Raises NotImplementedError where torch has none."""
    import torch
    from onnx import helper

    name = np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name
    found = getattr(torch, name, None)
    if name in _WIDER or not isinstance(found, torch.dtype):
        raise NotImplementedError(f"PyTorch has no {name}")
    return found


def to_tensor(value: Host) -> Any:
    """The host value as a tensor; it shares the array's memory where it can."""
    import torch

    if value.dtype == object:
        return _symbolic_tensor(value)
    name = value.dtype.name
    if name in _WIDER:
        value = value.astype(_WIDER[name])
    elif name in _BITS:
        return torch.from_numpy(_writable(value).view(_BITS[name])).view(getattr(torch, name))
    return torch.from_numpy(_writable(value))


def _writable(value: Host) -> Host:
    value = value if value.flags.c_contiguous else value.copy(order="C")  # ascontiguousarray makes scalars 1-D
    return value if value.flags.writeable else value.copy()


def _symbolic_tensor(value: Host) -> Any:
    import torch

    first = value.reshape(-1)[0]
    floating = isinstance(first, (float, torch.SymFloat))
    dtype = torch.float32 if floating else torch.int64
    return torch.stack([torch.scalar_tensor(item, dtype=dtype) for item in value.reshape(-1)]).reshape(value.shape)


def to_host(tensor: Any) -> Host:
    """A tensor's values; where torch is tracing with fake tensors, it raises what torch raises."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name in _BITS:
        import ml_dtypes
        import torch

        bits: Host = tensor.detach().view(getattr(torch, _BITS[name])).numpy()
        return bits.view(getattr(ml_dtypes, name))
    array: Host = tensor.detach().numpy()
    return array


def host_array(items: Iterable[Any], shape: tuple[int, ...] | None = None) -> Host:
    """An array of integers, or of objects where one of them is symbolic."""
    values = list(items)
    if all(isinstance(item, (int, np.integer)) for item in values):
        array: Host = np.array(values, np.int64)
    else:
        array = np.empty(len(values), object)
        for index, item in enumerate(values):  # one by one: numpy would look inside a tensor
            array[index] = item
    return array if shape is None else array.reshape(shape)


def settled(value: Any) -> Host:
    """The outcome of numpy on a host value: an array (not the bare element), of integers where none is symbolic."""
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else _scalar(value)
    if array.dtype == object and all(isinstance(item, (int, np.integer)) for item in array.reshape(-1)):
        flags = array.size and all(isinstance(item, (bool, np.bool_)) for item in array.reshape(-1))
        return array.astype(np.bool_ if flags else np.int64)
    return array


def _scalar(value: Any) -> Host:
    array = np.empty((), object)
    array[()] = value
    return array
