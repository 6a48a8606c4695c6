"""Operators for quantized arithmetic, computed in floating point: real = scale * (integer - zero_point)."""

from __future__ import annotations

from typing import Any

from edgekit.sources.bridges._onnx.operators_conv import convolve
from edgekit.sources.bridges._onnx.registry import Call, GraphStep, operator, refuses
from edgekit.sources.bridges._onnx.values import torch_dtype


def _spread(parameter: Any, x: Any, axis: int, block: int) -> Any:
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
def _quantize(call: Call) -> Any:
    x = call.tensor(0)
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    scale, zero = (_spread(call.maybe(index), x, axis, block) for index in (1, 2))
    zero_point = call.host(2)
    if zero_point is not None and zero_point.dtype.name in ("int4", "uint4", "int2", "uint2"):
        # Narrow integers are stored in eight bits here, and would saturate at the limits of those.
        raise NotImplementedError(f"QuantizeLinear to {zero_point.dtype.name}")
    named = call.attribute("output_dtype", 0)
    # Without zero point and output_dtype (since opset 21) the type is uint8, 2 in TensorProto.DataType.
    dtype = zero.dtype if zero is not None else torch_dtype(named or 2)
    return _quantized(x.float() / scale.float(), zero, dtype)


def _quantized(x: Any, zero: Any, dtype: Any) -> Any:
    """Round scaled values half to even, add the zero point, and saturate at the type's limits."""
    import torch

    if dtype.is_floating_point:
        return x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    limits = torch.iinfo(dtype)
    shifted = x.round() + (0 if zero is None else zero.float())
    # By int32: torch's casts of floats to unsigned types are undefined for some values on some CPUs.
    return shifted.clamp(limits.min, limits.max).to(torch.int32).to(dtype)


@operator("DequantizeLinear")
def _dequantize(call: Call) -> Any:
    x, scale = call.tensor(0), call.tensor(1)
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    zero = _spread(call.maybe(2), x, axis, block)
    wide = x.float() if zero is None else x.float() - zero.float()
    return (wide * _spread(scale, x, axis, block).float()).to(scale.dtype)


@operator("DynamicQuantizeLinear")
def _dynamic_quantize(call: Call) -> Any:
    import torch

    x = call.tensor(0)
    # DynamicQuantizeLinear: the range is extended to include 0, so that 0 has an exact representation.
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = (-low / scale).round().clamp(0, 255).to(torch.uint8)
    return _quantized(x / scale, zero, torch.uint8), scale, zero


def _real(call: Call, index: int, axis: int) -> Any:
    """Return the real value of inputs `index` to `index + 2`: value, scale and zero point.

    float64 represents the sums of integer products exactly, as the integer kernels of a runtime do.
    """
    x, scale, zero = (call.tensor(index + offset) for offset in range(3))
    return (x.double() - _spread(zero.double(), x, axis, 0)) * _spread(scale.double(), x, axis, 0)


@operator("QLinearMatMul")
def _qlinear_matmul(call: Call) -> Any:
    # Parameters of A per row, of B per column.
    product = _real(call, 0, -2) @ _real(call, 3, -1)
    return _quantized(product / call.tensor(6).double(), call.tensor(7), call.tensor(7).dtype)


@operator("QLinearConv")
def _qlinear_conv(call: Call) -> Any:
    x, weight = _real(call, 0, 1), _real(call, 3, 0)
    # The bias is int32 with scale x_scale * w_scale and zero point 0.
    bias = call.tensor(8).double() * call.tensor(1).double() * call.tensor(4).double() if call.has(8) else None
    result = convolve(call, x, weight, bias)
    return _quantized(result / call.tensor(6).double(), call.tensor(7), call.tensor(7).dtype)


@refuses("QuantizeLinear")
def _refuse_narrow(step: GraphStep) -> str | None:
    """Refuse types below eight bits: they are stored in eight bits here, and would not saturate at their own limits."""
    # Numbers of TensorProto.DataType.
    names = {21: "uint4", 22: "int4", 23: "float4e2m1", 25: "uint2", 26: "int2"}
    name = names.get(step.attributes.get("output_dtype", 0))
    return f"output_dtype {name}" if name else None
