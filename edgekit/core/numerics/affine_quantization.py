"""Affine quantization of arrays with a scale and a zero point, and its inverse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Quantization, TensorSpec


def _along_axis(values: tuple[float, ...] | tuple[int, ...], axis: int | None, ndim: int) -> NDArray[np.float64]:
    """Return the values in a shape that broadcasts against an array of `ndim` dimensions."""
    array = np.asarray(values, dtype=np.float64)
    if axis is None:
        return array.reshape(())
    return array.reshape([-1 if index == axis else 1 for index in range(ndim)])


def quantize(real: Array, quantization: Quantization, dtype: str) -> Array:
    """Quantize real values: clip(round(real / scale) + zero_point).

    The inverse of real = scale * (integer - zero_point), equation 1 of Jacob et al., "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

    Args:
        real: Real values of any shape.
        quantization: Scale and zero point, for the whole tensor or for each index along an axis.
        dtype: Name of the integer type; its range is the range to which values are clipped.

    Returns:
        Integers of the same shape. Halves are rounded to the even neighbour.
    """
    scale = _along_axis(quantization.scale, quantization.axis, real.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization.axis, real.ndim)
    limits = np.iinfo(dtype)
    # float64, because float32 does not hold integers above 2^24 exactly. `rint` rounds as ONNX's QuantizeLinear does.
    integers = np.rint(real.astype(np.float64) / scale) + zero_point
    clipped: Array = np.clip(integers, limits.min, limits.max).astype(dtype)
    return clipped


def dequantize(integers: Array, quantization: Quantization, dtype: str = "float32") -> Array:
    """Compute the real values scale * (integer - zero_point).

    Args:
        integers: Quantized values of any shape.
        quantization: Scale and zero point, for the whole tensor or for each index along an axis.
        dtype: Name of the floating-point type of the result.

    Returns:
        Real values of the same shape.
    """
    scale = _along_axis(quantization.scale, quantization.axis, integers.ndim)
    zero_point = _along_axis(quantization.zero_point, quantization.axis, integers.ndim)
    # float64 before the subtraction, which overflows in int8: 127 - (-128).
    real: Array = ((integers.astype(np.float64) - zero_point) * scale).astype(dtype)
    return real


def to_tensor(array: Array, spec: TensorSpec) -> Array:
    """Convert an array to the type of a tensor that it is fed to.

    Floating-point values are quantized where the tensor has a scale. Integers change their width where no value is
    lost, and unsigned bytes become real values where the tensor is of another type. Any other array is returned
    unchanged, so that the runtime reports a wrong type.

    Args:
        array: The values to feed.
        spec: The tensor of the artifact.

    Returns:
        An array of the same shape, or the array itself.
    """
    if spec.quantization is not None and np.issubdtype(array.dtype, np.floating):
        return quantize(array, spec.quantization, spec.dtype)
    # The pixels of images are real values from 0 to 255.
    if array.dtype == np.uint8 and spec.dtype != "uint8":
        if spec.quantization is not None:
            return quantize(array.astype(np.float32), spec.quantization, spec.dtype)
        if spec.dtype.startswith("float"):
            return array.astype(spec.dtype)
    # Converters narrow int64 inputs (token ids) to int32.
    if array.dtype.kind == "i" and spec.dtype.startswith("int") and array.dtype != spec.dtype:
        converted: Array = array.astype(spec.dtype)
        return converted if np.array_equal(converted, array) else array
    return array


def from_tensor(array: Array, spec: TensorSpec) -> Array:
    """Return the real values of a tensor.

    Args:
        array: The values as the runtime returns them.
        spec: The tensor of the artifact.

    Returns:
        float32 values where the tensor has a scale, else the array itself.
    """
    return array if spec.quantization is None else dequantize(array, spec.quantization)
