"""The numbers of a convolution's kernel: one for each axis, and the padding that keeps a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def each(value: Any, rank: int) -> list[int]:
    """Return a number for each of `rank` axes, of which PyTorch takes one for all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def same_sides(sizes: Sequence[int], dilation: Any) -> list[int]:
    """Return the sides that `padding="same"` pads, in the order of `torch.nn.functional.pad`.

    Args:
        sizes: The kernel's size along each axis.
        dilation: A number, or one for each axis.
    """
    totals = [step * (size - 1) for step, size in zip(each(dilation, len(sizes)), sizes, strict=True)]
    # PyTorch puts the odd element at the end.
    return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
