"""Operators that move, repeat, cut and join data without computing with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.registry import Call, operator
from edgekit.sources.bridges._onnx.values import to_tensor


@operator("Reshape")
def _reshape(call: Call) -> Any:
    x = call.tensor(0)
    target = call.numbers(1) if call.has(1) else call.attribute("shape")  # an attribute until opset 4
    # A size of 0 copies the input's, unless allowzero (since opset 14) is set. Symbolic sizes are not compared.
    copies = not call.attribute("allowzero", 0)
    sizes = [x.shape[i] if copies and isinstance(size, int) and size == 0 else size for i, size in enumerate(target)]
    return x.reshape(sizes)


@operator("Flatten")
def _flatten(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.attribute("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    # The result is always a matrix: (product of the axes before `axis`, product of the rest).
    if axis == 1 and x.dim() >= 2:
        return x.flatten(1)
    rows: Any = 1
    for size in x.shape[:axis]:
        rows = rows * size
    # -1 is ambiguous for a tensor without elements.
    return x.reshape(rows, -1) if x.numel() else x.reshape(rows, int(np.prod(x.shape[axis:])))


@operator("Transpose")
def _transpose(call: Call) -> Any:
    x = call.tensor(0)
    # Without perm the axes are reversed.
    return x.permute(call.attribute("perm") or list(range(x.dim()))[::-1])


@operator("Squeeze")
def _squeeze(call: Call) -> Any:
    x, axes = call.tensor(0), call.axes(1)
    return x.squeeze() if axes is None else x.squeeze(axes)


@operator("Unsqueeze")
def _unsqueeze(call: Call) -> Any:
    x, axes = call.tensor(0), call.axes(1) or []
    rank = x.dim() + len(axes)  # axes refer to the result
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def _concat(call: Call) -> Any:
    import torch

    return torch.cat(call.tensors(), dim=call.attribute("axis", 1))


@operator("Expand")
def _expand(call: Call) -> Any:
    x, target = call.tensor(0), call.numbers(1)
    missing = x.dim() - len(target)
    target = [1] * missing + target
    sizes = list(target)
    # Expand broadcasts both ways: from the right, a size of 1 on either side yields to the other.
    for at in range(1, x.dim() + 1):
        if isinstance(target[-at], int) and target[-at] == 1:
            sizes[-at] = x.shape[-at]
    return x.expand(sizes)


@operator("Tile")
def _tile(call: Call) -> Any:
    return call.tensor(0).repeat(call.numbers(1))


@operator("Split")
def _split(call: Call) -> Any:
    x, axis = call.tensor(0), call.attribute("axis", 0)
    sizes = call.numbers(1) if call.has(1) else call.attribute("split")  # an attribute until opset 12
    if sizes is None:  # equal parts, the last one smaller (num_outputs, since opset 18)
        parts = call.attribute("num_outputs", call.outputs)
        size = -(-x.shape[axis] // parts)
        sizes = [size] * (parts - 1) + [x.shape[axis] - size * (parts - 1)]
    return x.split(sizes, dim=axis)


@operator("Slice")
def _slice(call: Call) -> Any:
    x = call.tensor(0)
    if call.version < 10:  # attributes until opset 9, inputs from 10 on
        starts, ends = call.attribute("starts"), call.attribute("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = call.numbers(1), call.numbers(2)
        axes = call.numbers(3) if call.has(3) else None
        steps = call.numbers(4) if call.has(4) else None
    axes = axes or list(range(len(starts)))
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        x = _cut(x, int(axis) % x.dim(), start, end, int(step))
    return x


def _cut(x: Any, axis: int, start: Any, end: Any, step: int) -> Any:
    """Return x[start:end:step] along an axis; torch has no negative steps."""
    import torch

    if step > 0:
        # aten's slice rather than Python's: it takes symbolic bounds and clamps them as ONNX does.
        return torch.ops.aten.slice.Tensor(x, axis, start, end, step) if (start, step) != (0, 1) or end < _FAR else x
    size = x.shape[axis]
    first = min(start + size if start < 0 else start, size - 1)
    last = max(end + size if end < 0 else end, -1)
    # Backwards from first to last, without last: the mirrored slice of the flipped tensor.
    return torch.ops.aten.slice.Tensor(x.flip(axis), axis, size - 1 - first, max(size - 1 - last, 0), -step)


# Exporters write the largest int32 or int64 for "to the end of the axis".
_FAR = 2**31 - 1


@operator("Pad")
def _pad(call: Call) -> Any:
    x = call.tensor(0)
    pads = list(call.numbers(1) if call.has(1) else call.attribute("pads"))  # an attribute until opset 10
    value = call.number(2, call.attribute("value", 0.0))
    # axes: an input since opset 18. pads lists all sizes before the axes, then all sizes behind them.
    axes = [int(axis) % x.dim() for axis in call.numbers(3)] if call.has(3) else list(range(x.dim()))
    sides = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    mode = call.attribute("mode", "constant")
    return pad_constant(x, sides, value) if mode == "constant" else _pad_by_index(x, sides, mode)


def pad_constant(x: Any, sides: dict[int, tuple[Any, Any]], value: Any) -> Any:
    """Pad a tensor with a constant.

    Args:
        x: The tensor.
        sides: (before, after) by axis; negative numbers crop.
        value: The constant.

    Returns:
        The padded tensor; x itself if all sides are zero.
    """
    import torch.nn.functional as F

    # torch lists the last axis first; trailing zeros are left out, since converters support short lists better.
    flat = [size for axis in range(x.dim() - 1, -1, -1) for size in sides.get(axis, (0, 0))]
    while flat and isinstance(flat[-1], int) and isinstance(flat[-2], int) and not flat[-1] and not flat[-2]:
        flat = flat[:-2]
    return F.pad(x, flat, value=value) if flat else x


def _pad_by_index(x: Any, sides: dict[int, tuple[Any, Any]], mode: str) -> Any:
    """Pad by the modes reflect, edge and wrap: with torch where it supports rank and width, else by gathering."""
    import torch.nn.functional as F

    # torch pads the spatial axes of (N, C, L) and (N, C, H, W), by less than the size of the axis.
    spatial = x.dim() in (3, 4) and all(sides.get(axis, (0, 0)) == (0, 0) for axis in (0, 1))
    if spatial and mode in ("reflect", "edge") and min(min(pair) for pair in sides.values()) >= 0:
        flat = [size for axis in range(x.dim() - 1, 1, -1) for size in sides.get(axis, (0, 0))]
        fits = all(max(sides.get(axis, (0, 0))) < x.shape[axis] for axis in range(2, x.dim()))
        if fits and x.is_floating_point():
            return F.pad(x, flat, mode={"reflect": "reflect", "edge": "replicate"}[mode])
    for axis, (before, after) in sides.items():
        if (before, after) != (0, 0):
            places = np.arange(-before, x.shape[axis] + after)
            x = x.index_select(axis, to_tensor(_source(places, x.shape[axis], mode)))
    return x


def _source(places: Any, size: int, mode: str) -> Any:
    """Return the index of the element that appears at each place, which may lie beyond the axis."""
    if mode == "edge":
        return places.clip(0, size - 1)
    if mode == "wrap":
        return places % size
    # reflect does not repeat the border: 0 1 2 1 0 1 2 has the period 2 * (size - 1).
    period = max(2 * (size - 1), 1)
    return (size - 1) - np.abs(places % period - (size - 1))


@operator("DepthToSpace")
def _depth_to_space(call: Call) -> Any:
    import torch.nn.functional as F

    x, block = call.tensor(0), call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    # DCR (depth, column, row) puts the block's axes before the channels, CRD, torch's pixel_shuffle, behind them.
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def _space_to_depth(call: Call) -> Any:
    x, block = call.tensor(0), call.attribute("blocksize")
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if call.attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    x = x.reshape(n, c, h // block, block, w // block, block).permute(order)
    return x.reshape(n, c * block**2, h // block, w // block)


@operator("Trilu")
def _trilu(call: Call) -> Any:
    import torch

    return (torch.triu if call.attribute("upper", 1) else torch.tril)(call.tensor(0), int(call.number(1, 0)))


@operator("CenterCropPad")
def _center_crop_pad(call: Call) -> Any:
    x, sizes = call.tensor(0), call.numbers(1)
    axes = call.attribute("axes") or list(range(len(sizes)))
    for axis, size in zip(axes, sizes, strict=True):
        have = x.shape[axis]
        # An odd element is cropped from, or padded to, the end.
        if size < have:
            x = x.narrow(axis, (have - size) // 2, size)
        else:
            before = (size - have) // 2
            x = pad_constant(x, {axis % x.dim(): (before, size - have - before)}, 0)
    return x


@operator("ReverseSequence")
def _reverse_sequence(call: Call) -> Any:
    import torch

    x, lengths = call.tensor(0), call.tensor(1)
    time, batch = call.attribute("time_axis", 0), call.attribute("batch_axis", 1)
    steps = torch.arange(x.shape[time]).reshape([-1 if axis == time else 1 for axis in range(x.dim())])
    ends = lengths.reshape([-1 if axis == batch else 1 for axis in range(x.dim())])
    return x.gather(time, torch.where(steps < ends, ends - 1 - steps, steps).expand(x.shape))


@operator("ConstantOfShape")
def _constant_of_shape(call: Call) -> Any:
    import torch

    value = call.attribute("value", np.zeros(1, np.float32))  # the standard's default: float32 zero
    return torch.full(call.numbers(0), value.reshape(-1)[0].item(), dtype=to_tensor(value).dtype)


@operator("Range")
def _range(call: Call) -> Any:
    import torch

    start = call.host(0)
    # A symbolic start is a size, int64 like the output of Shape.
    dtype = call.tensor(0).dtype if start is None or start.dtype != object else torch.int64
    return torch.arange(call.number(0), call.number(1), call.number(2), dtype=dtype)


@operator("EyeLike")
def _eye_like(call: Call) -> Any:
    import torch

    from edgekit.sources.bridges._onnx.values import torch_dtype

    x, offset = call.tensor(0), call.attribute("k", 0)
    dtype = torch_dtype(call.attribute("dtype")) if call.attribute("dtype") else x.dtype
    rows, columns = torch.arange(x.shape[0]).unsqueeze(1), torch.arange(x.shape[1])
    return (columns - rows == offset).to(dtype)
