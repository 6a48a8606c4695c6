"""Operators for gathering and scattering."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.registry import Call, operator
from edgekit.sources.bridges._onnx.values import to_tensor


def _positive(index: Any, size: Any) -> Any:
    """Return indices from 0 on: ONNX counts negative ones from the end, torch's index functions refuse them."""
    import torch

    return torch.where(index < 0, index + size, index)


@operator("Gather")
def _gather(call: Call) -> Any:
    x, axis = call.tensor(0), call.attribute("axis", 0) % max(call.tensor(0).dim(), 1)
    constant = call.host(1)
    # Constant indices are normalized here, which leaves a plain index_select or embedding in the graph.
    if constant is None or constant.dtype == object:
        index = _positive(call.tensor(1).long(), x.shape[axis])
        return _pick(x, axis, index)
    if constant.ndim == 0:
        return x.select(axis, int(constant))
    size = x.shape[axis]
    if (constant < 0).any():
        constant = np.where(constant < 0, constant + size, constant)
        return _pick(x, axis, to_tensor(constant.astype(np.int64)))
    return _pick(x, axis, call.tensor(1).long())


def _pick(x: Any, axis: int, index: Any) -> Any:
    """Gather along an axis; the result's shape is x's with the axis replaced by the shape of the indices."""
    import torch.nn.functional as F

    # Converters and quantizers have a kernel for an embedding.
    if axis == 0 and x.dim() == 2 and x.is_floating_point():
        return F.embedding(index, x)
    if index.dim() == 1:
        return x.index_select(axis, index)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@operator("GatherElements")
def _gather_elements(call: Call) -> Any:
    x, axis = call.tensor(0), call.attribute("axis", 0)
    return x.gather(axis, _positive(call.tensor(1).long(), x.shape[axis]))


@operator("GatherND")
def _gather_nd(call: Call) -> Any:
    x, index, batch = call.tensor(0), call.tensor(1).long(), call.attribute("batch_dims", 0)
    last = index.shape[-1]
    parts = [_positive(index[..., i], x.shape[batch + i]) for i in range(last)]
    if not batch:
        return x[tuple(parts)]
    # One index along the flattened axes; positions of samples would need a range whose end a trace cannot record.
    flat: Any = 0
    for axis, part in enumerate(parts):
        flat = flat * x.shape[batch + axis] + part
    batches, rest, shape = x.shape[:batch], x.shape[batch + last :], flat.shape
    places = flat.reshape(*batches, -1, *[1] * len(rest)).expand(*batches, -1, *rest)
    return x.reshape(*batches, -1, *rest).gather(batch, places).reshape(*shape, *rest)


@operator("ScatterElements", "Scatter")
def _scatter_elements(call: Call) -> Any:
    x, updates, axis = call.tensor(0), call.tensor(2), call.attribute("axis", 0)
    index = _positive(call.tensor(1).long(), x.shape[axis])
    reduction = call.attribute("reduction", "none")  # add and mul since opset 16, max and min since 18
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction], include_self=True)


# ONNX's names of reductions and torch's.
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterND")
def _scatter_nd(call: Call) -> Any:
    """Write updates to places of x's first axes, which are flattened to one."""
    x, index, updates = call.tensor(0), call.tensor(1).long(), call.tensor(2)
    depth = index.shape[-1]
    flat: Any = 0
    for i in range(depth):
        flat = flat * x.shape[i] + _positive(index[..., i], x.shape[i])
    rows = x.reshape(-1, *x.shape[depth:])
    updates = updates.reshape(-1, *x.shape[depth:])
    flat = flat.reshape(-1)
    reduction = call.attribute("reduction", "none")
    if reduction == "none":
        return rows.index_put((flat,), updates).reshape(x.shape)
    places = flat.reshape(-1, *[1] * (rows.dim() - 1)).expand_as(updates)
    return rows.scatter_reduce(0, places, updates, _REDUCTIONS[reduction], include_self=True).reshape(x.shape)


@operator("TensorScatter")
def _tensor_scatter(call: Call) -> Any:
    """Write updates into a key-value cache, along the axis from each sample's own position on."""
    import torch

    cache, update = call.tensor(0), call.tensor(1)
    axis = call.attribute("axis", -2) % cache.dim()
    starts = call.tensor(2) if call.has(2) else torch.zeros(cache.shape[0], dtype=torch.int64)
    steps = torch.arange(update.shape[axis])
    places = starts.unsqueeze(1) + steps
    if call.attribute("mode", "linear") == "circular":  # positions wrap around the end of the cache
        places = places % cache.shape[axis]
    shape = [1] * cache.dim()
    shape[0], shape[axis] = places.shape[0], places.shape[1]
    return cache.scatter(axis, places.reshape(shape).expand(update.shape), update)


@operator("OneHot")
def _one_hot(call: Call) -> Any:
    import torch

    index, depth, values = call.tensor(0).long(), int(call.number(1)), call.tensor(2)
    axis = call.attribute("axis", -1)
    rank = index.dim() + 1
    index = _positive(index, depth).unsqueeze(axis)
    shape = [-1 if at == axis % rank else 1 for at in range(rank)]
    return torch.where(torch.arange(depth).reshape(shape) == index, values[1], values[0])


@operator("NonZero")
def _non_zero(call: Call) -> Any:
    return call.tensor(0).nonzero().t()


@operator("Compress")
def _compress(call: Call) -> Any:
    x, axis = call.tensor(0), call.attribute("axis")
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(axis, call.tensor(1).nonzero().reshape(-1))


@operator("Unique")
def _unique(call: Call) -> Any:
    """Return the unique values, their first positions, the inverse indices, and the counts.

    The values are sorted, or in the order of first occurrence, which torch.unique does not offer.
    """
    axis, array = call.attribute("axis"), call.tensor(0).numpy()
    values, first, back, counts = np.unique(array, True, True, True, axis=axis)
    back = back.reshape(-1)
    if not call.attribute("sorted", 1):
        order = np.argsort(first)
        values = np.take(values, order, axis=axis or 0)
        first, counts, back = first[order], counts[order], np.argsort(order)[back]
    return tuple(np.ascontiguousarray(array) for array in (values, first, back, counts))


@operator("If")
def _select(call: Call) -> Any:
    """Return one of the results of both branches; the reader computes them, and passes condition, then and else."""
    condition, then, otherwise = call.tensors()
    if then.shape != otherwise.shape or then.dtype != otherwise.dtype:
        raise RuntimeError(
            "If with a condition that depends on the input, whose branches return tensors of different shapes or types"
        )
    return then.where(condition.reshape(()), otherwise)
