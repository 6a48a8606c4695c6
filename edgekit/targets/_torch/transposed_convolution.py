"""Transposed convolutions of PyTorch in the form that the kernels of TFLite and ExecuTorch compute."""

from __future__ import annotations

from math import prod
from typing import Any

from edgekit.targets._torch.kernels import each
from edgekit.targets._torch.volume_convolution import convolve_volume

# Batch and channels, the axes in front of those that a kernel moves along.
_LEADING = 2
# TRANSPOSE_CONV has two spatial axes.
_PLANE = 2


def convolve_transposed(
    _func: Any,
    input: Any,  # noqa: A002 - PyTorch's name of the parameter
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Compute a transposed convolution from one without padding, dilation and groups.

    The result without padding is cut at its start by the padding, and at its end to the size that PyTorch's output
    padding asks for. Dilation becomes zeros between the elements of the kernel. One dimension is a plane of one row.
    In three dimensions the input itself is spread by zeros, and an ordinary convolution with the mirrored kernel
    follows.

    Args:
        _func: The function that is computed otherwise.
        input: Shape (N, C, ...), or without N.
        weight: Shape (C, outputs / groups, ...).
        bias: Shape (outputs,) or None.
        stride: A number, or one for each axis, as all that follow.
        padding: What is cut off at both ends.
        output_padding: What is added at the end.
        groups: The number of groups of channels.
        dilation: The distance of the kernel's elements.

    Returns:
        The result, or NotImplemented where litert-torch lowers the function itself: without padding, and with the
        padding that makes the result `stride` times as large as the input.
    """
    import torch

    rank = weight.dim() - _LEADING
    if input.dim() != weight.dim():  # without a batch
        return NotImplemented
    strides, pads, extra, steps = (each(value, rank) for value in (stride, padding, output_padding, dilation))
    if not all(isinstance(size, int) for size in input.shape[_LEADING:]):
        return NotImplemented
    sizes = zip(weight.shape[_LEADING:], strides, pads, strict=True)
    no_padding = set(pads) == {0} or (not any(extra) and all(width - step == 2 * pad for width, step, pad in sizes))
    if rank == _PLANE and set(steps) == {1} and no_padding and groups == 1:
        return NotImplemented
    outputs = [
        (size - 1) * step - 2 * pad + apart * (width - 1) + more + 1
        for size, step, pad, apart, width, more in zip(
            input.shape[_LEADING:], strides, pads, steps, weight.shape[_LEADING:], extra, strict=True
        )
    ]
    for axis, apart in enumerate(steps, _LEADING):
        weight = _spread(weight, axis, apart)
    # A chunk that is the whole tensor would be an alias of a parameter, which torch.export cannot name.
    pairs = [(input, weight)] if groups == 1 else zip(input.chunk(groups, 1), weight.chunk(groups, 0), strict=True)
    parts = [_plain(part, kernel, strides) for part, kernel in pairs]
    result = parts[0] if groups == 1 else torch.cat(parts, 1)
    for axis, (pad, size) in enumerate(zip(pads, outputs, strict=True), _LEADING):
        result = _window(result, axis, pad, size)
    return result if bias is None else result + bias.reshape(1, -1, *[1] * rank)


def _plain(x: Any, weight: Any, strides: list[int]) -> Any:
    """Return the transposed convolution of one group without padding."""
    import torch.nn.functional as F

    if len(strides) == _PLANE:
        return F.conv_transpose2d(x, weight, None, strides)
    if len(strides) < _PLANE:
        return F.conv_transpose2d(x[:, :, None], weight[:, :, None], None, [1, *strides])[:, :, 0]
    for axis, step in enumerate(strides, _LEADING):
        x = _spread(x, axis, step)
    axes = list(range(_LEADING, weight.dim()))
    for axis in axes:
        margin = weight.shape[axis] - 1
        x = _padded(x, axis, margin, margin)
    return convolve_volume(None, x, weight.transpose(0, 1).flip(axes))


def _spread(x: Any, axis: int, step: int) -> Any:
    """Return x with `step - 1` zeros between its elements along an axis."""
    size = x.shape[axis]
    if step == 1 or size == 1:
        return x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    # One axis for all that lies before and one for all behind: TFLite pads tensors of at most five axes.
    flat = x.reshape(prod(before) * size, 1, prod(after))
    spread = _padded(flat, 1, 0, step - 1).reshape(*before, size * step, *after)
    return spread.narrow(axis, 0, (size - 1) * step + 1)


def _window(x: Any, axis: int, start: int, size: int) -> Any:
    """Return `size` elements along an axis from `start` on; zeros where x has ended."""
    missing = max(0, start + size - x.shape[axis])
    if missing:
        x = _padded(x, axis, 0, missing)
    return x if (start, size) == (0, x.shape[axis]) else x.narrow(axis, start, size)


def _padded(x: Any, axis: int, before: int, after: int) -> Any:
    import torch.nn.functional as F

    if not before and not after:
        return x
    return F.pad(x, [*[0, 0] * (x.dim() - 1 - axis), before, after])
