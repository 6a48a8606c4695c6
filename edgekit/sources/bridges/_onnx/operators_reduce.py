"""Operators that reduce axes or run along one: sums, softmax, cumulative sums, arg max, top k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.sources.bridges._onnx.registry import Call, operator


def _axes(call: Call, x: Any) -> list[int] | None:
    """Return the axes to reduce, ascending and non-negative; None if nothing is reduced.

    Without axes all are reduced, unless `noop_with_empty_axes` (since opset 13 or 18) is set.
    """
    axes = call.axes(1)
    if not axes:
        return None if call.attribute("noop_with_empty_axes", 0) else list(range(x.dim()))
    return sorted(axis % x.dim() for axis in axes)


def _empty(x: Any, axes: list[int]) -> bool:
    return any(x.shape[axis] == 0 for axis in axes)


def _sum(x: Any, axes: list[int], keep: bool) -> Any:
    return x.sum(dim=axes, keepdim=keep) if axes else x


def _mean(x: Any, axes: list[int], keep: bool) -> Any:
    if not x.is_floating_point():  # torch.mean takes floating-point types only; the caller converts back
        return x.double().mean(dim=axes, keepdim=keep) if axes else x
    return x.mean(dim=axes, keepdim=keep) if axes else x


def _prod(x: Any, axes: list[int], keep: bool) -> Any:
    for axis in reversed(axes):  # torch.prod takes one axis; from the last one, earlier ones keep their position
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _extreme(x: Any, axes: list[int], keep: bool, largest: bool) -> Any:
    if not axes:
        return x
    if _empty(x, axes):  # the neutral element, as ReduceMax and ReduceMin define it; torch refuses empty reductions
        import torch

        limits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        floating = float("-inf") if largest else float("inf")
        neutral = floating if x.is_floating_point() else (limits.min if largest else limits.max)
        return _sum(x, axes, keep).to(x.dtype).fill_(neutral)
    return x.amax(dim=axes, keepdim=keep) if largest else x.amin(dim=axes, keepdim=keep)


def _max(x: Any, axes: list[int], keep: bool) -> Any:
    return _extreme(x, axes, keep, largest=True)


def _min(x: Any, axes: list[int], keep: bool) -> Any:
    return _extreme(x, axes, keep, largest=False)


def _log_sum_exp(x: Any, axes: list[int], keep: bool) -> Any:
    if _empty(x, axes) or not x.is_floating_point():  # torch.logsumexp takes neither
        return _sum(x.double().exp(), axes, keep).log()
    return x.logsumexp(dim=axes, keepdim=keep)


def _sqrt(x: Any) -> Any:
    return x.sqrt() if x.is_floating_point() else x.double().sqrt()


_REDUCTIONS: dict[str, Callable[[Any, list[int], bool], Any]] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _prod,
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: _sqrt(_sum(x * x, axes, keep)),
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": _log_sum_exp,
}


@operator(*_REDUCTIONS)
def _reduce(call: Call) -> Any:
    import torch

    x = call.tensor(0)
    axes = _axes(call, x)
    # Without axes nothing is reduced, but the elementwise part (the square, say) remains: ReduceSumSquare, opset 18.
    dims = [] if axes is None else axes
    wide = x.to(torch.uint8) if x.dtype == torch.bool else x
    return _REDUCTIONS[call.step.op_type](wide, dims, bool(call.attribute("keepdims", 1))).to(x.dtype)


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Any:
    x = call.tensor(0)
    if call.version >= 13:  # one axis, -1 by default
        return _along(call, x, call.attribute("axis", -1))
    # Until opset 12, all axes from `axis` on are coerced to one: the input is seen as a matrix.
    axis = call.attribute("axis", 1) % max(x.dim(), 1)
    if axis == x.dim() - 1:
        return _along(call, x, -1)
    return _along(call, x.flatten(axis), -1).reshape(x.shape)


def _along(call: Call, x: Any, axis: int) -> Any:
    import torch
    import torch.nn.functional as F

    if call.step.op_type == "Hardmax":
        return torch.zeros_like(x).scatter(axis, x.argmax(dim=axis, keepdim=True), 1.0)
    return (F.softmax if call.step.op_type == "Softmax" else F.log_softmax)(x, dim=axis)


@operator("ArgMax", "ArgMin")
def _arg(call: Call) -> Any:
    import torch

    x, axis, keep = call.tensor(0), call.attribute("axis", 0), bool(call.attribute("keepdims", 1))
    find = torch.argmax if call.step.op_type == "ArgMax" else torch.argmin
    if call.attribute("select_last_index", 0):  # since opset 12; torch takes the first of equal values
        return x.shape[axis] - 1 - find(x.flip(axis), dim=axis, keepdim=keep)
    return find(x, dim=axis, keepdim=keep)


@operator("CumSum", "CumProd")
def _cumulative(call: Call) -> Any:
    import torch

    x, axis = call.tensor(0), int(call.number(1))
    if call.attribute("reverse", 0):
        x = x.flip(axis)
    result = (x.cumsum(axis) if call.step.op_type == "CumSum" else x.cumprod(axis)).to(x.dtype)
    if call.attribute("exclusive", 0):  # element i excludes x[i]: shifted by one, from the neutral element on
        first = torch.zeros_like if call.step.op_type == "CumSum" else torch.ones_like
        result = torch.cat([first(x.narrow(axis, 0, 1)), result.narrow(axis, 0, x.shape[axis] - 1)], dim=axis)
    return result.flip(axis) if call.attribute("reverse", 0) else result


@operator("TopK")
def _top_k(call: Call) -> Any:
    x, axis = call.tensor(0), call.attribute("axis", -1)
    count = call.number(1) if call.has(1) else call.attribute("k")  # an input since opset 10
    largest = bool(call.attribute("largest", 1))
    # A stable sort: of equal values ONNX takes the lower index first (TopK since opset 11), torch.topk any. A sorted
    # result is also valid for sorted=0.
    values, indices = x.sort(dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


@operator("LpNormalization")
def _lp_normalization(call: Call) -> Any:
    x, axis, p = call.tensor(0), call.attribute("axis", -1), call.attribute("p", 2)
    norm = x.abs().sum(axis, keepdim=True) if p == 1 else (x * x).sum(axis, keepdim=True).sqrt()
    return (x / norm).where(norm != 0, norm)  # a zero vector stays zero
