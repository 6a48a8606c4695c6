"""Operators of ONNX Runtime's own domain `com.microsoft`, which its quantizers and its optimizer write.

Definitions: ONNX Runtime, docs/ContribOperators.md. Most are a standard operator with a few more around it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekit.sources.bridges._onnx import registry
from edgekit.sources.bridges._onnx.operators_conv import convolve
from edgekit.sources.bridges._onnx.operators_linear import integer_matmul, shifted
from edgekit.sources.bridges._onnx.operators_quantize import dequantize, quantize, quantized, requantized
from edgekit.sources.bridges._onnx.registry import Call, operator

DOMAIN = "com.microsoft"
# The standard operator set whose operators the ones here are made of.
_STANDARD_OPSET = 17

operator("QuantizeLinear", domain=DOMAIN)(quantize)
operator("DequantizeLinear", domain=DOMAIN)(dequantize)


def _standard(call: Call, op_type: str, *values: Any, **attributes: Any) -> Any:
    """Return the first result of a standard operator with the attributes of a call, and others."""
    merged = {**call.step.attributes, **attributes}
    step = replace(call.step, op_type=op_type, domain="", version=_STANDARD_OPSET, attributes=merged)
    return registry.run(step, values)[0]


def _real(call: Call, index: int) -> Any:
    """Return the real value of inputs `index` to `index + 2`: value, scale and zero point."""
    x, scale, zero = call.tensor(index), call.tensor(index + 1), call.maybe(index + 2)
    shifted_x = x.float() if zero is None else x.float() - zero.float()
    return shifted_x * scale


def _stored(call: Call, value: Any, index: int) -> Any:
    """Return a real value, quantized with scale and zero point of inputs `index` and `index + 1`."""
    import torch

    zero = call.maybe(index + 1)
    return quantized(value / call.tensor(index), zero, torch.uint8 if zero is None else zero.dtype)


@operator("QLinearAdd", "QLinearMul", domain=DOMAIN)
def _qlinear_arithmetic(call: Call) -> Any:
    left, right = _real(call, 0), _real(call, 3)
    return _stored(call, left + right if call.step.op_type == "QLinearAdd" else left * right, 6)


@operator("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearReduceMean", domain=DOMAIN)
def _qlinear_function(call: Call) -> Any:
    return _stored(call, _standard(call, call.step.op_type.removeprefix("QLinear"), _real(call, 0)), 3)


@operator("QLinearGlobalAveragePool", "QLinearAveragePool", domain=DOMAIN)
def _qlinear_pool(call: Call) -> Any:
    x, last = _real(call, 0), call.attribute("channels_last", 0)
    x = x.movedim(-1, 1) if last else x
    pooled = _standard(call, call.step.op_type.removeprefix("QLinear"), x)
    return _stored(call, pooled.movedim(1, -1) if last else pooled, 3)


@operator("QLinearConcat", domain=DOMAIN)
def _qlinear_concat(call: Call) -> Any:
    import torch

    parts = [_real(call, index) for index in range(2, len(call.values), 3)]
    return _stored(call, torch.cat(parts, call.attribute("axis")), 0)


@operator("QLinearWhere", domain=DOMAIN)
def _qlinear_where(call: Call) -> Any:
    return _stored(call, _real(call, 1).where(call.tensor(0), _real(call, 4)), 7)


@operator("QGemm", domain=DOMAIN)
def _qgemm(call: Call) -> Any:
    a, b = shifted(call, 0, 2, -1), shifted(call, 3, 5, 0 if not call.attribute("transB", 0) else 1)
    a = a.t() if call.attribute("transA", 0) else a
    b = b.t() if call.attribute("transB", 0) else b
    total = integer_matmul(a, b)
    total = total + call.tensor(6) if call.has(6) else total
    scale = call.tensor(1) * call.tensor(4) * call.attribute("alpha", 1.0)
    if not call.has(7):  # without an output scale, the result is real
        return total.float() * scale
    return requantized(total, scale / call.tensor(7), call.tensor(8))


@operator("MatMulIntegerToFloat", domain=DOMAIN)
def _matmul_integer_to_float(call: Call) -> Any:
    product = integer_matmul(shifted(call, 0, 4, -1), shifted(call, 1, 5, 0)).float()
    result = product * (call.tensor(2) * call.tensor(3))
    return result + call.tensor(6) if call.has(6) else result


@operator("DynamicQuantizeMatMul", domain=DOMAIN)
def _dynamic_quantize_matmul(call: Call) -> Any:
    integers, scale, zero = registry.run(
        replace(call.step, op_type="DynamicQuantizeLinear", domain="", version=_STANDARD_OPSET), (call.tensor(0),)
    )
    product = integer_matmul(integers.int() - zero.int(), shifted(call, 1, 3, 0)).float()
    result = product * (scale * call.tensor(2))
    return result + call.tensor(4) if call.has(4) else result


@operator("MatMulNBits", domain=DOMAIN)
def _matmul_n_bits(call: Call) -> Any:
    """Multiply by weights (N, K) that are stored in blocks of 2, 4 or 8 bits along K, with a scale for each block."""
    import torch
    import torch.nn.functional as F

    rows, columns = call.attribute("N"), call.attribute("K")
    bits, block = call.attribute("bits", 4), call.attribute("block_size")
    blocks = -(-columns // block)
    integers = _unpacked(call.tensor(1).reshape(rows, blocks, -1), bits)[..., :block]  # (N, blocks, block)
    scales = call.tensor(2).reshape(rows, blocks, 1)
    zero: Any = float(2 ** (bits - 1))  # the middle, if zero points are omitted
    if call.has(3):
        stored = call.tensor(3)
        # Packed like the weights, each row in whole bytes; or one real number for each block.
        packed = not stored.is_floating_point()
        zero = _unpacked(stored.reshape(rows, -1), bits)[:, :blocks] if packed else stored.reshape(rows, blocks)
        zero = zero.float().unsqueeze(-1)
    weight = ((integers.float() - zero) * scales.float()).reshape(rows, -1)[:, :columns]
    if call.has(4):  # the position in the scales of each column
        order = torch.argsort(call.tensor(4).long(), stable=True)
        weight = torch.zeros_like(weight).index_copy(1, order, weight)
    return F.linear(call.tensor(0), weight.to(call.tensor(0).dtype), call.maybe(5))


def _unpacked(stored: Any, bits: int) -> Any:
    """Return bytes (..., B) as the numbers that they contain (..., B * 8 / bits), the lowest bits first."""
    import torch

    wide = stored.to(torch.int32)
    parts = [(wide >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(parts, -1).reshape(*stored.shape[:-1], -1)


@operator("FusedMatMul", "TransposeMatMul", domain=DOMAIN)
def _fused_matmul(call: Call) -> Any:
    left, right = call.tensors()[:2]
    for name in ("A", "B"):
        x = left if name == "A" else right
        if call.attribute(f"transBatch{name}", 0):  # the batch axes and the rows change places: (M, B.., K)
            x = x.movedim(0, -2)
        if call.attribute(f"trans{name}", 0) and x.dim() > 1:
            x = x.transpose(-1, -2)
        left, right = (x, right) if name == "A" else (left, x)
    return (left @ right) * call.attribute("alpha", 1.0)


@operator("FusedGemm", domain=DOMAIN)
def _fused_gemm(call: Call) -> Any:
    return _activated(call, _standard(call, "Gemm", *call.values))


@operator("FusedConv", domain=DOMAIN)
def _fused_conv(call: Call) -> Any:
    result = convolve(call, call.tensor(0), call.tensor(1), call.maybe(2))
    return _activated(call, result + call.tensor(3) if call.has(3) else result)


def _activated(call: Call, x: Any) -> Any:
    """Apply the activation that a fused operator names, with its parameters."""
    name, parameters = call.attribute("activation", ""), call.attribute("activation_params", [])
    if not name:
        return x
    if name == "Clip":
        return x.clamp(*parameters)
    keys = {"HardSigmoid": ("alpha", "beta")}.get(name, ("alpha",))
    alpha = call.attribute("activation_alpha", None)  # FusedGemm's spelling
    values = parameters or ([] if alpha is None else [alpha])
    return _standard(call, name, x, **dict(zip(keys, values, strict=False)))


@operator("BiasGelu", "Gelu", domain=DOMAIN)
def _gelu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.gelu(call.tensor(0) + call.tensor(1) if call.has(1) else call.tensor(0))


@operator("FastGelu", domain=DOMAIN)
def _fast_gelu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.gelu(call.tensor(0) + call.tensor(1) if call.has(1) else call.tensor(0), approximate="tanh")


@operator("QuickGelu", domain=DOMAIN)
def _quick_gelu(call: Call) -> Any:
    x = call.tensor(0)
    return x * (x * call.attribute("alpha", 1.702)).sigmoid()


@operator("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=DOMAIN)
def _skip_norm(call: Call) -> Any:
    """Normalize the sum of two inputs and a bias; the fourth output is that sum, the second and third are unused."""
    import torch.nn.functional as F

    simplified = "Simplified" in call.step.op_type
    total = call.tensor(0) + call.tensor(1)
    bias = 3 if simplified else 4
    total = total + call.tensor(bias) if call.has(bias) else total
    epsilon = call.attribute("epsilon", 1e-5 if simplified else 1e-12)
    gamma = call.tensor(2)
    if simplified:
        result = F.rms_norm(total, gamma.shape, gamma, epsilon)
    else:
        result = F.layer_norm(total, gamma.shape, gamma, call.maybe(3), epsilon)
    return result, None, None, total
