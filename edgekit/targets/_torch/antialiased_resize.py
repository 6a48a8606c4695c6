"""Antialiased resizing as two matrix products, whose matrices are computed while a module is traced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array

# Half the width of PyTorch's filters, in pixels of the larger grid.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
# The coefficient of PyTorch's antialiased cubic filter, as in Pillow; the one without antialiasing has -0.75.
_CUBIC = -0.5
_IMAGE_AXES = 4


def resize_matrix(
    mode: str, size: int, new_size: int, scale_factor: float | None = None, *, align_corners: bool = False
) -> Array:
    """Return the matrix that resizes one axis, as `torch.nn.functional.interpolate` with `antialias=True` does.

    Args:
        mode: `bilinear` or `bicubic`.
        size: The size of the axis.
        new_size: Its size after resizing.
        scale_factor: The factor, where PyTorch takes the steps from it rather than from the sizes.
        align_corners: Whether the centers of the first and last pixels coincide.

    Returns:
        Shape (new_size, size), float64; each row sums to 1.
    """
    if align_corners:
        step = (size - 1) / (new_size - 1) if new_size > 1 else 0.0
    else:
        step = 1 / scale_factor if scale_factor else size / new_size
    stretch = max(step, 1.0)
    support = _SUPPORT[mode] * stretch
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        center = step * (row + 0.5)
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), size)
        weights = [_filter(mode, (column - center + 0.5) / stretch) for column in range(first, last)]
        matrix[row, first:last] = np.array(weights) / math.fsum(weights)
    return matrix


def _filter(mode: str, x: float) -> float:
    x = abs(x)
    if mode == "bilinear":
        return max(0.0, 1 - x)
    # Keys' cubic convolution kernel: 1 at 0, 0 at the other whole numbers.
    if x < 1:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _CUBIC if x < _SUPPORT[mode] else 0.0


def interpolate(
    _func: Any,
    input: Any,  # noqa: A002 - PyTorch's name of the parameter
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Resize as `torch.nn.functional.interpolate` does; return NotImplemented unless `antialias` is set."""
    if not antialias or mode not in _SUPPORT:
        return NotImplemented
    factors = [None, None] if scale_factor is None else _pair(scale_factor)
    if size is None:
        sizes = [math.floor(old * factor) for old, factor in zip(input.shape[2:], factors, strict=True)]
    else:
        sizes = _pair(size)
    if recompute_scale_factor:
        factors = [None, None]
    return _resized(input, mode, sizes, factors, align_corners=bool(align_corners))


def upsample(mode: str) -> Callable[..., Any]:
    """Return a function that computes the operator `aten._upsample_MODE2d_aa`.

    Args:
        mode: `bilinear` or `bicubic`.

    Returns:
        A function of an overload, the default one or `vec`, and its arguments; it returns NotImplemented where sizes
        are not known.
    """

    def resize(func: Any, x: Any, output_size: Any, align_corners: bool, *scales: Any) -> Any:
        takes_pairs = func._overloadname == "vec"
        factors = list(scales[0] or ()) if takes_pairs and scales else list(scales)
        if output_size is None:
            output_size = [math.floor(old * factor) for old, factor in zip(x.shape[2:], factors, strict=True)]
        return _resized(x, mode, list(output_size), factors or [None, None], align_corners=align_corners)

    return resize


def _pair(value: Any) -> list[Any]:
    return [value, value] if isinstance(value, int | float) else list(value)


def _resized(x: Any, mode: str, sizes: list[Any], factors: list[Any], *, align_corners: bool) -> Any:
    import torch
    import torch.nn.functional as F

    if x.dim() != _IMAGE_AXES or not all(isinstance(number, int) for number in (*x.shape[2:], *sizes)):
        return NotImplemented
    rows, columns = (
        torch.tensor(resize_matrix(mode, old, new, factor, align_corners=align_corners), dtype=torch.float32)
        for old, new, factor in zip(x.shape[2:], sizes, factors, strict=True)
    )
    # Fully connected layers, which quantizers know, over the columns and then over the rows.
    narrow = F.linear(x, columns)
    return F.linear(narrow.transpose(2, 3), rows).transpose(2, 3)
