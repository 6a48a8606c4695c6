"""Operators for quantized arithmetic, computed in floating point: real = scale * (integer - zero_point)."""

from __future__ import annotations

from typing import Any

from edgekit.sources.bridges._onnx.operators_conv import integer_convolve
from edgekit.sources.bridges._onnx.operators_linear import integer_matmul, shifted
from edgekit.sources.bridges._onnx.registry import Call, GraphStep, operator, refuses
from edgekit.sources.bridges._onnx.values import torch_dtype


def spread(parameter: Any, x: Any, axis: int, block: int) -> Any:
    """Return a scale or zero point in a shape that broadcasts against x.

    It has one value in total, one per channel of the axis, or (`block` > 0, since opset 21) one per block of the axis.
    """
    if parameter is None or parameter.dim() == 0 or (parameter.numel() == 1 and parameter.dim() <= 1):
        return parameter if parameter is None else parameter.reshape(())
    if parameter.dim() == 1 and not block:
        return parameter.reshape([-1 if at == axis % x.dim() else 1 for at in range(x.dim())])
    axis = axis % x.dim()
    # The last block may be partial.
    return parameter.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])


@operator("QuantizeLinear")
def quantize(call: Call) -> Any:
    x = call.tensor(0)
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    scale, zero = (spread(call.maybe(index), x, axis, block) for index in (1, 2))
    zero_point = call.host(2)
    if zero_point is not None and zero_point.dtype.name in ("int4", "uint4", "int2", "uint2"):
        # Narrow integers are stored in eight bits here, and would saturate at the limits of those.
        raise NotImplementedError(f"QuantizeLinear to {zero_point.dtype.name}")
    named = call.attribute("output_dtype", 0)
    # Without zero point and output_dtype (since opset 21) the type is uint8, 2 in TensorProto.DataType.
    dtype = zero.dtype if zero is not None else torch_dtype(named or 2)
    return quantized(x.float() / scale.float(), zero, dtype)


def quantized(x: Any, zero: Any, dtype: Any) -> Any:
    """Round scaled values half to even, add the zero point, and saturate at the type's limits."""
    import torch

    if dtype.is_floating_point:
        return x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    limits = torch.iinfo(dtype)
    shifted = x.round() + (0 if zero is None else zero.float())
    # By int32: torch's casts of floats to unsigned types are undefined for some values on some CPUs.
    return shifted.clamp(limits.min, limits.max).to(torch.int32).to(dtype)


@operator("DequantizeLinear")
def dequantize(call: Call) -> Any:
    x, scale = call.tensor(0), call.tensor(1)
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    zero = spread(call.maybe(2), x, axis, block)
    wide = x.float() if zero is None else x.float() - zero.float()
    return (wide * spread(scale, x, axis, block).float()).to(scale.dtype)


@operator("DynamicQuantizeLinear")
def _dynamic_quantize(call: Call) -> Any:
    import torch

    x = call.tensor(0)
    # DynamicQuantizeLinear: the range is extended to include 0, so that 0 has an exact representation.
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = (-low / scale).round().clamp(0, 255).to(torch.uint8)
    return quantized(x / scale, zero, torch.uint8), scale, zero


def requantized(total: Any, scale: Any, zero: Any) -> Any:
    """Return exact sums of products, multiplied by a scale, as the integers of the zero point's type.

    Args:
        total: The sums as int32.
        scale: x_scale * w_scale / y_scale in float32, as integer kernels compute it; it broadcasts against `total`.
        zero: The zero point.

    Returns:
        The quantized values.
    """
    return quantized(total.float() * scale, zero, zero.dtype)


@operator("QLinearMatMul")
def _qlinear_matmul(call: Call) -> Any:
    # Parameters of A per row, of B per column.
    total = integer_matmul(shifted(call, 0, 2, -1), shifted(call, 3, 5, 0))
    left, right = call.tensor(1), call.tensor(4)
    left = left.unsqueeze(-1) if left.dim() == 1 and left.numel() > 1 else left
    return requantized(total, left * right / call.tensor(6), call.tensor(7))


@operator("QLinearConv")
def _qlinear_conv(call: Call) -> Any:
    x = call.tensor(0).float() - call.tensor(2).float()
    weight = call.tensor(3)
    weight = weight.float() - spread(call.tensor(5).float(), weight, 0, 0)
    total = integer_convolve(call, x, weight)
    shape = [1, -1, *[1] * (weight.dim() - 2)]  # per output channel
    # The bias is int32 with scale x_scale * w_scale and zero point 0.
    total = total + call.tensor(8).reshape(shape) if call.has(8) else total
    scale = call.tensor(1) * call.tensor(4) / call.tensor(6)
    return requantized(total, scale.reshape(shape) if scale.numel() > 1 else scale, call.tensor(7))


@refuses("QuantizeLinear")
def _refuse_narrow(step: GraphStep) -> str | None:
    """Refuse types below eight bits: they are stored in eight bits here, and would not saturate at their own limits."""
    # Numbers of TensorProto.DataType.
    names = {21: "uint4", 22: "int4", 23: "float4e2m1", 25: "uint2", 26: "int2"}
    name = names.get(step.attributes.get("output_dtype", 0))
    return f"output_dtype {name}" if name else None
