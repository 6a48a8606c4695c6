"""Operators for convolution and pooling; tensors have the layout (N, C, *spatial), as in torch."""

from __future__ import annotations

import math
from typing import Any

from edgekit.sources.bridges._onnx.operators_linear import EXACT_TERMS
from edgekit.sources.bridges._onnx.operators_shape import pad_constant
from edgekit.sources.bridges._onnx.registry import Call, GraphStep, operator, refuses
from edgekit.sources.bridges._onnx.windows import Window, window, with_ceil


def _spatial(sides: tuple[tuple[Any, Any], ...]) -> dict[int, tuple[Any, Any]]:
    """Return the pads by axis of the tensor: the spatial axes follow N and C."""
    return {axis + 2: pair for axis, pair in enumerate(sides)}


@operator("Conv")
def _conv(call: Call) -> Any:
    return convolve(call, call.tensor(0), call.tensor(1), call.maybe(2))


def convolve(call: Call, x: Any, weight: Any, bias: Any) -> Any:
    """Compute the convolution that a node describes.

    Args:
        call: The call, for its attributes only: quantized operators pass tensors of their own.
        x: The input, (N, C, *spatial).
        weight: The weights, (M, C / group, *kernel).
        bias: The bias, (M,), or None.

    Returns:
        The output, (N, M, *spatial).
    """
    import torch.nn.functional as F

    geometry = window(call, list(x.shape[2:]), list(weight.shape[2:]))
    # torch's convolutions pad both sides of an axis alike; other pads become a pad operator of their own.
    padding = geometry.padding if geometry.symmetric else [0] * len(geometry.pads)
    x = x if geometry.symmetric else pad_constant(x, _spatial(geometry.pads), 0.0)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(geometry.kernel)]
    return function(
        x, weight, bias, list(geometry.strides), padding, list(geometry.dilations), call.attribute("group", 1)
    )


@operator("ConvTranspose")
def _conv_transpose(call: Call) -> Any:
    import torch.nn.functional as F

    x, weight, bias = call.tensor(0), call.tensor(1), call.maybe(2)
    rank = x.dim() - 2
    geometry = window(call, list(x.shape[2:]), list(weight.shape[2:]))
    extra = call.attribute("output_padding") or [0] * rank
    pads = _transpose_pads(call, geometry, list(x.shape[2:]), extra)
    # torch takes equal pads on both sides only, and an output_padding below the stride or the dilation. Otherwise the
    # full output is computed, and its sides are cropped or extended.
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
    torch_takes = all(before == after >= 0 for before, after in pads) and all(
        size < max(stride, dilation)
        for size, stride, dilation in zip(extra, geometry.strides, geometry.dilations, strict=True)
    )
    padding, more = ([before for before, _ in pads], extra) if torch_takes else ([0] * rank, [0] * rank)
    # The bias is added at the end: the elements that output_padding adds have a bias, too.
    group = call.attribute("group", 1)
    if torch_takes:
        return function(x, weight, bias, geometry.strides, padding, more, group, geometry.dilations)
    y = function(x, weight, None, geometry.strides, padding, more, group, geometry.dilations)
    sides = tuple((-before, size - after) for (before, after), size in zip(pads, extra, strict=True))
    y = pad_constant(y, _spatial(sides), 0.0)
    return y if bias is None else y + bias.reshape(1, -1, *[1] * rank)


def _transpose_pads(call: Call, geometry: Window, sizes: list[Any], extra: list[int]) -> tuple[tuple[Any, Any], ...]:
    """Return what is cropped from the output's sides: the pads, or what `output_shape` or SAME_* imply.

    ConvTranspose: total_padding = stride * (input_size - 1) + output_padding + ((kernel - 1) * dilation + 1)
    - output_size.
    """
    mode, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if mode in ("NOTSET", "VALID") and not wanted:
        return geometry.pads
    wanted = wanted or [size * stride for size, stride in zip(sizes, geometry.strides, strict=True)]
    pads = []
    # output_shape may include N and C: only the last, spatial sizes count.
    for size, stride, reach, more, want in zip(
        sizes, geometry.strides, geometry.reach, extra, wanted[-len(sizes) :], strict=True
    ):
        total = stride * (size - 1) + more + reach - want
        half = total // 2
        # The standard puts an odd element after the axis for SAME_UPPER, and before it in all other cases.
        pads.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return tuple(pads)


@operator("MaxPool")
def _max_pool(call: Call) -> Any:
    import torch
    import torch.nn.functional as F

    x = call.tensor(0)
    sizes = list(x.shape[2:])
    geometry = window(call, sizes, call.attribute("kernel_shape"))
    rank = len(geometry.kernel)
    function = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[rank]
    # torch's max pooling requires equal pads of at most half the kernel, and not all of its kernels take integers.
    # Everything else, ceil_mode included, becomes explicit padding by -inf.
    exact = geometry.symmetric and all(2 * p <= k for p, k in zip(geometry.padding, geometry.kernel, strict=True))
    exact = exact and not call.attribute("ceil_mode", 0) and x.is_floating_point()
    offset = [0] * rank
    padded, padding = x, geometry.padding
    if not exact:
        geometry = with_ceil(geometry, sizes) if call.attribute("ceil_mode", 0) else geometry
        wide = x if x.is_floating_point() else x.to(torch.float64)  # -inf as padding needs a floating-point type
        padded, padding = pad_constant(wide, _spatial(geometry.pads), -math.inf), [0] * rank
        offset = [before for before, _ in geometry.pads]
    arguments = (padded, list(geometry.kernel), list(geometry.strides), padding, list(geometry.dilations))
    if not call.wants(1):
        return function(*arguments).to(x.dtype)
    values, indices = function(*arguments, return_indices=True)
    # ONNX counts positions in the whole tensor (N * C planes), torch within each plane.
    places = _unpadded(indices, list(padded.shape[2:]), sizes, offset, bool(call.attribute("storage_order", 0)))
    planes = torch.arange(x.shape[0] * x.shape[1]).reshape(x.shape[0], x.shape[1], *[1] * rank)
    return values.to(x.dtype), places + planes * math.prod(sizes)


def _unpadded(indices: Any, padded: list[int], sizes: list[int], offset: list[int], column_major: bool) -> Any:
    """Convert flat positions in a padded plane to flat positions in the plane itself.

    `column_major` is `storage_order` = 1 of MaxPool: positions are numbered along the columns.
    """
    coordinates: list[Any] = []
    for axis in range(len(sizes) - 1, -1, -1):
        coordinates.insert(0, indices % padded[axis] - offset[axis])
        indices = indices // padded[axis]
    order = range(len(sizes) - 1, -1, -1) if column_major else range(len(sizes))
    flat: Any = 0
    for axis in order:
        flat = flat * sizes[axis] + coordinates[axis]
    return flat


@operator("MaxUnpool")
def _max_unpool(call: Call) -> Any:
    import torch

    x, indices = call.tensor(0), call.tensor(1)
    kernel, strides = call.attribute("kernel_shape"), call.attribute("strides") or [1] * (x.dim() - 2)
    pads = call.attribute("pads") or [0] * 2 * len(kernel)
    plane = [
        (size - 1) * stride - pads[i] - pads[i + len(kernel)] + reach
        for i, (size, stride, reach) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
    ]
    default_shape = [*x.shape[:2], *plane]  # the shape without `output_shape`: the indices refer to it in any case
    shape = call.numbers(2) if call.has(2) else default_shape
    flat = (
        torch.zeros(math.prod(default_shape), dtype=x.dtype)
        .scatter(0, indices.reshape(-1), x.reshape(-1))
        .reshape(default_shape)
    )
    return pad_constant(
        flat, {i: (0, want - have) for i, (want, have) in enumerate(zip(shape, default_shape, strict=True))}, 0.0
    )


@operator("AveragePool")
def _average_pool(call: Call) -> Any:
    import torch
    import torch.nn.functional as F

    x = call.tensor(0)
    sizes = list(x.shape[2:])
    geometry = window(call, sizes, call.attribute("kernel_shape"))
    rank, counts_pads = len(geometry.kernel), bool(call.attribute("count_include_pad", 0))
    function = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
    # torch's average pooling has no dilations; these and ceil_mode are computed as sums of windows.
    small = geometry.symmetric and all(2 * p <= k for p, k in zip(geometry.padding, geometry.kernel, strict=True))
    if small and set(geometry.dilations) == {1} and not call.attribute("ceil_mode", 0):
        return function(x, list(geometry.kernel), list(geometry.strides), geometry.padding, False, counts_pads)
    wider = with_ceil(geometry, sizes) if call.attribute("ceil_mode", 0) else geometry
    # The divisor of each window is the sum of a plane in which counted elements are 1, padded like x.
    ones = torch.ones_like(x[:1, :1])
    if counts_pads:  # count_include_pad counts explicit pads, not the elements that ceil_mode adds
        ones = pad_constant(ones, _spatial(geometry.pads), 1.0)
        rest = tuple((0, w[1] - f[1]) for w, f in zip(wider.pads, geometry.pads, strict=True))
        ones = pad_constant(ones, _spatial(rest), 0.0)
    else:
        ones = pad_constant(ones, _spatial(wider.pads), 0.0)
    return _window_sums(pad_constant(x, _spatial(wider.pads), 0.0), wider) / _window_sums(ones, wider)


def _window_sums(x: Any, geometry: Window) -> Any:
    """Return the sum of every window of an input that is already padded: a convolution of each plane with ones."""
    import torch
    import torch.nn.functional as F

    rank = len(geometry.kernel)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    planes = x.reshape(-1, 1, *x.shape[2:])
    ones = torch.ones(1, 1, *geometry.kernel, dtype=x.dtype)
    sums = function(planes, ones, None, list(geometry.strides), 0, list(geometry.dilations))
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@operator("LpPool")
def _lp_pool(call: Call) -> Any:
    x, p = call.tensor(0), call.attribute("p", 2)
    geometry = window(call, list(x.shape[2:]), call.attribute("kernel_shape"))
    geometry = with_ceil(geometry, list(x.shape[2:])) if call.attribute("ceil_mode", 0) else geometry
    return _window_sums(pad_constant(x.abs() ** p, _spatial(geometry.pads), 0.0), geometry) ** (1 / p)


@operator("GlobalAveragePool")
def _global_average_pool(call: Call) -> Any:
    import torch.nn.functional as F

    x = call.tensor(0)
    if x.dim() == 4:  # quantizers match the pooling function, not a mean
        return F.adaptive_avg_pool2d(x, 1)
    return x.mean(dim=list(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(call: Call) -> Any:
    x = call.tensor(0)
    return x.amax(dim=list(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool")
def _global_lp_pool(call: Call) -> Any:
    x, p = call.tensor(0), call.attribute("p", 2)
    return (x.abs() ** p).sum(dim=list(range(2, x.dim())), keepdim=True) ** (1 / p)


@operator("Col2Im")
def _col2im(call: Call) -> Any:
    """Add the columns, each the content of one window, into the image; overlapping windows add up."""
    import torch

    x, image, block = call.tensor(0), call.numbers(1), call.numbers(2)
    rank = len(image)
    geometry = window(call, image, block)
    n, channels = x.shape[0], x.shape[1] // math.prod(block)
    padded = [size + sum(pair) for size, pair in zip(image, geometry.pads, strict=True)]
    counts = [(p - r) // s + 1 for p, r, s in zip(padded, geometry.reach, geometry.strides, strict=True)]
    # place: the flat position in the padded image of each element (first `rank` axes) of each window (last ones).
    place: Any = 0
    for axis in range(rank):
        inside = torch.arange(block[axis]) * geometry.dilations[axis]
        starts = torch.arange(counts[axis]) * geometry.strides[axis]
        inside = inside.reshape([-1 if at == axis else 1 for at in range(2 * rank)])
        starts = starts.reshape([-1 if at == axis + rank else 1 for at in range(2 * rank)])
        place = place * padded[axis] + inside + starts
    flat = torch.zeros(n, channels, math.prod(padded), dtype=x.dtype)
    flat = flat.index_add(2, place.reshape(-1), x.reshape(n, channels, -1))
    cut = tuple((-before, -after) for before, after in geometry.pads)
    return pad_constant(flat.reshape(n, channels, *padded), _spatial(cut), 0.0)


@operator("ConvInteger")
def _conv_integer(call: Call) -> Any:
    x, weight = call.tensor(0).float(), call.tensor(1).float()
    if call.has(2):
        x = x - call.tensor(2).float()
    if call.has(3):
        zero = call.tensor(3).float()
        weight = weight - (zero.reshape(-1, *[1] * (weight.dim() - 1)) if zero.dim() else zero)
    return integer_convolve(call, x, weight)


def integer_convolve(call: Call, x: Any, weight: Any) -> Any:
    """Return the exact convolution of integers, as int32.

    Computed in float32, for which every converter has a kernel, over so few channels at a time that it is exact.

    Args:
        call: The call, for its attributes.
        x: Eight-bit integers minus a zero point, as float32.
        weight: Likewise.

    Returns:
        The sums of products.
    """
    size = math.prod(weight.shape[2:])
    channels = weight.shape[1]
    if size * channels <= EXACT_TERMS:
        return convolve(call, x, weight, None).int()
    if call.attribute("group", 1) != 1 or size > EXACT_TERMS:
        return convolve(call, x.double(), weight.double(), None).int()
    total: Any = 0
    step = EXACT_TERMS // size
    for start in range(0, channels, step):
        count = min(step, channels - start)
        part = convolve(call, x.narrow(1, start, count), weight.narrow(1, start, count), None)
        total = total + part.int()
    return total


@operator("DeformConv")
def _deform_conv(call: Call) -> Any:
    """Sample the elements of every window where the offsets move them, and multiply them by the weights as a matrix."""
    import torch
    import torch.nn.functional as F

    x, weight, offset = call.tensor(0), call.tensor(1), call.tensor(2)
    n, channels, height, width = x.shape
    groups, moved = call.attribute("group", 1), call.attribute("offset_group", 1)
    geometry = window(call, [height, width], list(weight.shape[2:]))
    rows, columns = offset.shape[2:]
    taps = math.prod(geometry.kernel)
    offset = offset.reshape(n, moved, taps, 2, rows, columns)
    place = _taps(geometry, rows, columns) + offset.movedim(3, -1)  # (N, G, taps, rows, columns, 2), y before x
    # grid_sample takes x before y, in -1..1 from the centre of the first pixel to that of the last (align_corners).
    scale = torch.tensor([2 / max(height - 1, 1), 2 / max(width - 1, 1)])
    grid = (place * scale - 1).flip(-1).reshape(n * moved, taps * rows, columns, 2)
    parts = x.reshape(n * moved, channels // moved, height, width)
    sampled = F.grid_sample(parts, grid, align_corners=True).reshape(n, moved, -1, taps, rows, columns)
    if call.has(4):
        sampled = sampled * call.tensor(4).reshape(n, moved, 1, taps, rows, columns)
    sampled = sampled.reshape(n, groups, channels // groups * taps, rows * columns)
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    result = (matrix @ sampled).reshape(n, -1, rows, columns)
    return result + call.tensor(3).reshape(1, -1, 1, 1) if call.has(3) else result


def _taps(geometry: Window, rows: int, columns: int) -> Any:
    """Return the position (y, x) of each element of each window, (taps, rows, columns, 2)."""
    import torch

    ys, xs = (
        torch.arange(k).unsqueeze(1) * d + torch.arange(o) * s - p[0]
        for k, d, o, s, p in zip(
            geometry.kernel, geometry.dilations, (rows, columns), geometry.strides, geometry.pads, strict=True
        )
    )
    shape = (len(ys), len(xs), rows, columns)
    ys, xs = ys[:, None, :, None].expand(shape), xs[None, :, None, :].expand(shape)
    return torch.stack([ys, xs], dim=-1).reshape(-1, rows, columns, 2)


@refuses("Conv", "ConvTranspose")
def _refuse_conv(step: GraphStep) -> str | None:
    rank = len(step.attributes.get("kernel_shape", ()))  # torch has convolutions of one to three dimensions
    return f"a kernel of {rank} dimensions" if rank > 3 else None
