"""The two kinds of values in a running graph, tensors and host arrays, and their conversion.

Constants, and everything that is computed from shapes, are host values: numpy arrays whose dtype is object and whose
elements are torch.SymInts if a dimension is symbolic. All other values are torch tensors. torch.export needs sizes as
numbers; shape arithmetic in tensors would give it data, on which a traced reshape cannot depend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[Any]

# Types that numpy lacks (ml_dtypes adds them): torch.from_numpy accepts their bits as integers of the same width only.
_BITS = {"bfloat16": "int16", **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz"), "uint8")}
_BITS |= dict.fromkeys(("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), "uint8")
# torch has neither arithmetic nor casts for types narrower than eight bits.
_WIDER = {"int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}
# Integer constants of up to this many elements are treated as shapes, axes or pads, longer ones as data. The longest
# of those are the pads of a rank-8 tensor: 2 * 8.
_MAX_SHAPE_ELEMENTS = 16


@dataclass(frozen=True)
class Constant:
    """A value that is the same in every run.

    Attributes:
        array: The value on the host.
        tensor: The module's parameter or buffer over the same memory, if there is one.
    """

    array: Host
    tensor: Any = None


def is_data(array: Host) -> bool:
    """Return whether a constant is data and thus becomes a parameter or buffer of the module."""
    return array.dtype != object and (_is_floating(array) or array.size > _MAX_SHAPE_ELEMENTS)


def _is_floating(array: Host) -> bool:
    return array.dtype.kind in "fc" or array.dtype.name in _BITS


def torch_dtype(element_type: int) -> Any:
    """Return the torch.dtype for an element type of ONNX.

    Args:
        element_type: A number of `onnx.TensorProto.DataType`.

    Returns:
        The `torch.dtype`.

    Raises:
        NotImplementedError: PyTorch has no such type, or cannot compute with it.
    """
    import torch
    from onnx import helper

    name = np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name
    dtype = getattr(torch, name, None)
    # torch.int4 exists, but only as a storage type.
    if name in _WIDER or not isinstance(dtype, torch.dtype):
        raise NotImplementedError(f"PyTorch has no {name}")
    return dtype


def to_tensor(value: Host) -> Any:
    """Return a host value as a tensor, which shares the array's memory if possible.

    Args:
        value: An array of numbers, or of torch.SymInts and torch.SymFloats.

    Returns:
        The tensor; integers narrower than eight bits become int8 or uint8.
    """
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
    """Return a contiguous, writable array: torch.from_numpy warns about read-only memory."""
    value = value if value.flags.c_contiguous else value.copy(order="C")  # ascontiguousarray makes scalars 1-D
    return value if value.flags.writeable else value.copy()


def _symbolic_tensor(value: Host) -> Any:
    """Return symbolic numbers as a tensor: int64 like ONNX's Shape, float32 after a division."""
    import torch

    first = value.reshape(-1)[0]
    floating = isinstance(first, (float, torch.SymFloat))
    dtype = torch.float32 if floating else torch.int64
    return torch.stack([torch.scalar_tensor(item, dtype=dtype) for item in value.reshape(-1)]).reshape(value.shape)


def to_host(tensor: Any) -> Host:
    """Return a tensor's values as an array.

    Args:
        tensor: The tensor.

    Returns:
        An array over the tensor's memory if possible.

    Raises:
        RuntimeError: The tensor has no data, because torch is tracing; torch raises the error.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name in _BITS:
        import ml_dtypes
        import torch

        bits: Host = tensor.detach().view(getattr(torch, _BITS[name])).numpy()
        return bits.view(getattr(ml_dtypes, name))
    array: Host = tensor.detach().numpy()
    return array


def host_array(numbers: Iterable[Any], shape: tuple[int, ...] | None = None) -> Host:
    """Return numbers as an int64 array, or as an array of objects if one of them is symbolic.

    Args:
        numbers: Integers or torch.SymInts.
        shape: The shape of the array; one-dimensional by default.

    Returns:
        The array.
    """
    values = list(numbers)
    if all(isinstance(value, (int, np.integer)) for value in values):
        array: Host = np.array(values, np.int64)
    else:
        array = np.empty(len(values), object)
        for index, value in enumerate(values):  # one by one: numpy would look inside a tensor
            array[index] = value
    return array if shape is None else array.reshape(shape)


def settled(value: Any) -> Host:
    """Return the result of a numpy operation on a host value in normal form.

    Args:
        value: An array, or the bare element that numpy returns in place of a zero-dimensional array.

    Returns:
        An array; its dtype is int64 or bool rather than object if no element is symbolic.
    """
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else _scalar(value)
    if array.dtype == object and all(isinstance(element, (int, np.integer)) for element in array.reshape(-1)):
        # bool is a subclass of int: comparisons give flags, which must not become 0 and 1.
        flags = array.size and all(isinstance(element, (bool, np.bool_)) for element in array.reshape(-1))
        return array.astype(np.bool_ if flags else np.int64)
    return array


def _scalar(value: Any) -> Host:
    array = np.empty((), object)
    array[()] = value
    return array
