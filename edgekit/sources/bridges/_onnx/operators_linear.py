"""Operators for matrix products."""

from __future__ import annotations

from typing import Any

from edgekit.sources.bridges._onnx.registry import Call, operator


@operator("MatMul")
def _matmul(call: Call) -> Any:
    left, right = call.tensors()
    if not left.is_floating_point() and left.dtype.itemsize < 4:  # sums of 8- and 16-bit products wrap at the end only
        return (left.int() @ right.int()).to(left.dtype)
    return left @ right


@operator("Gemm")
def _gemm(call: Call) -> Any:
    """Compute alpha * A' * B' + beta * C, with torch's linear where possible: converters have a kernel for it."""
    import torch.nn.functional as F

    a, b, bias = call.tensor(0), call.tensor(1), call.maybe(2)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    a = a.t() if call.attribute("transA", 0) else a
    weight = b if call.attribute("transB", 0) else b.t()
    if not a.is_floating_point():
        result = (alpha * (a @ weight.t())).to(a.dtype)
        return result if bias is None else (result + beta * bias).to(a.dtype)
    if alpha != 1.0:
        weight = weight * alpha  # on the weights: folded at conversion
    if bias is None:
        return F.linear(a, weight)
    bias = bias if beta == 1.0 else bias * beta
    if bias.dim() == 1 and bias.shape[0] == weight.shape[0]:
        return F.linear(a, weight, bias)
    # A row (1, M) is a bias as well; only of a constant is the shape certain in every run.
    if bias.dim() == 2 and bias.shape[0] == 1 and bias.shape[1] == weight.shape[0] and call.host(2) is not None:
        return F.linear(a, weight, bias.reshape(-1))
    return F.linear(a, weight) + bias


@operator("Einsum")
def _einsum(call: Call) -> Any:
    import torch

    # ONNX allows blanks anywhere in the equation.
    return torch.einsum(call.attribute("equation").replace(" ", ""), *call.tensors())


# Sums of this many products of eight-bit integers, shifted by their zero points, are exact in float32: 2^24 / 255^2.
EXACT_TERMS = 258


@operator("MatMulInteger")
def _matmul_integer(call: Call) -> Any:
    # Zero points: one per row of A, one per column of B.
    return integer_matmul(shifted(call, 0, 2, -1), shifted(call, 1, 3, 0))


def shifted(call: Call, index: int, zero_index: int, axis: int) -> Any:
    """Return input `index` as int32 minus its zero point, which is a scalar or has one value per row or column."""
    x, zero = call.tensor(index).int(), call.maybe(zero_index)
    if zero is None:
        return x
    zero = zero.int()
    return x - (zero.unsqueeze(axis) if zero.dim() == 1 and zero.numel() > 1 else zero)


def integer_matmul(left: Any, right: Any) -> Any:
    """Return the exact product of integer matrices, as int32.

    Computed in float32, for which every converter has a kernel, in parts short enough to be exact.

    Args:
        left: Eight-bit integers minus a zero point, (..., M, K).
        right: Eight-bit integers minus a zero point, (..., K, N).

    Returns:
        The product, (..., M, N).
    """
    left, right = left.float(), right.float()
    terms = right.shape[-2] if right.dim() > 1 else right.shape[0]
    total: Any = 0
    for start in range(0, int(terms), EXACT_TERMS):
        size = min(EXACT_TERMS, int(terms) - start)
        rows = right.narrow(-2 if right.dim() > 1 else 0, start, size)
        total = total + (left.narrow(-1, start, size) @ rows).int()
    return total
