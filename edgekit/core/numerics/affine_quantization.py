"""The one place that takes real values through scale and zero point, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Quantization, TensorSpec


def _along_axis(values: tuple[float, ...] | tuple[int, ...], axis: int | None, ndim: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if axis is None:
        return array.reshape(())
    return array.reshape([-1 if index == axis else 1 for index in range(ndim)])


def quantize(real: Array, quantization: Quantization, dtype: str) -> Array:
    """round(real / scale) + zero_point, half to even, clipped to the range of the integer `dtype`. Shape unchanged."""
    scale = _along_axis(quantization.scale, quantization.axis, real.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization.axis, real.ndim)
    limits = np.iinfo(dtype)
    integers = np.rint(real.astype(np.float64) / scale) + zero_point
    clipped: Array = np.clip(integers, limits.min, limits.max).astype(dtype)
    return clipped


def dequantize(integers: Array, quantization: Quantization, dtype: str = "float32") -> Array:
    """scale * (integer - zero_point), in the floating `dtype`. Shape unchanged."""
    scale = _along_axis(quantization.scale, quantization.axis, integers.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization.axis, integers.ndim)
    real: Array = ((integers.astype(np.float64) - zero_point) * scale).astype(dtype)
    return real


def to_tensor(array: Array, spec: TensorSpec) -> Array:
    """The array as the tensor wants it: quantized when that has a scale, in its width where both are integers and no
    value is lost (converters make int32 of int64), else unchanged: a wrong dtype stays wrong."""
    if spec.quantization is not None and np.issubdtype(array.dtype, np.floating):
        return quantize(array, spec.quantization, spec.dtype)
    if array.dtype.kind == "i" and spec.dtype.startswith("int") and array.dtype != spec.dtype:
        narrow: Array = array.astype(spec.dtype)
        return narrow if np.array_equal(narrow, array) else array
    return array


def from_tensor(array: Array, spec: TensorSpec) -> Array:
    """The tensor's real values: dequantized when it has a scale, unchanged otherwise."""
    return array if spec.quantization is None else dequantize(array, spec.quantization)
