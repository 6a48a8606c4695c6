"""The one place that takes real values through scale and zero point, and back."""

from __future__ import annotations

import numpy as np

from edgekit.core.metrics import Array
from edgekit.core.specs import Quantization, TensorSpec


def _along_axis(values: tuple[float, ...] | tuple[int, ...], axis: int | None, ndim: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if axis is None or array.size == 1:
        return array.reshape(-1)[0] if array.size == 1 else array
    return array.reshape([-1 if index == axis else 1 for index in range(ndim)])


def quantize(real: Array, quantization: Quantization, dtype: str) -> Array:
    """round(real / scale) + zero_point, half to even, clipped to the range of the integer `dtype`. Shape unchanged."""
    scale = _along_axis(quantization.scale, quantization.axis, real.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization.axis, real.ndim)
    limits = np.iinfo(dtype)
    integers = np.rint(real.astype(np.float64) / scale) + zero_point
    return np.clip(integers, limits.min, limits.max).astype(dtype)


def dequantize(integers: Array, quantization: Quantization, dtype: str = "float32") -> Array:
    """scale * (integer - zero_point), in the floating `dtype`. Shape unchanged."""
    scale = _along_axis(quantization.scale, quantization.axis, integers.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization.axis, integers.ndim)
    return ((integers.astype(np.float64) - zero_point) * scale).astype(dtype)


def to_tensor(array: Array, spec: TensorSpec) -> Array:
    """The array as the tensor wants it: quantized when it has a scale, unchanged otherwise (a wrong dtype stays wrong)."""
    if spec.quantization is not None and np.issubdtype(array.dtype, np.floating):
        return quantize(array, spec.quantization, spec.dtype)
    return array


def from_tensor(array: Array, spec: TensorSpec) -> Array:
    """The tensor's real values: dequantized when it has a scale, unchanged otherwise."""
    return array if spec.quantization is None else dequantize(array, spec.quantization)
