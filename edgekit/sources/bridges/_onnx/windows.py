"""Geometry of the windows of convolutions and poolings: pads by `auto_pad`, and the windows that ceil_mode adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.sources.bridges._onnx.registry import Call

# (before, after) for each spatial axis.
Sides = tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes.

    Attributes:
        kernel: The size along each axis.
        strides: The step from one window to the next along each axis.
        dilations: The distance between neighbouring elements of the window along each axis.
        pads: The padding (before, after) each axis; negative numbers crop.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Sides

    @property
    def symmetric(self) -> bool:
        """Whether torch's padding argument, one non-negative number per axis, can express the pads."""
        return all(before == after >= 0 for before, after in self.pads)

    @property
    def padding(self) -> list[Any]:
        """The pads as torch's padding argument; valid if `symmetric`."""
        return [before for before, _ in self.pads]

    @property
    def reach(self) -> tuple[int, ...]:
        """The number of elements that the dilated window spans along each axis."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))


def window(call: Call, sizes: list[Any], kernel: list[int]) -> Window:
    """Return the window of a node.

    Args:
        call: The call of a convolution or pooling.
        sizes: The spatial sizes of its input.
        kernel: The spatial sizes of its kernel.

    Returns:
        The window, with the pads that `auto_pad` implies for these sizes.
    """
    rank = len(kernel)
    strides = tuple(call.attribute("strides") or [1] * rank)
    dilations = tuple(call.attribute("dilations") or [1] * rank)
    mode = call.attribute("auto_pad", "NOTSET")
    # ONNX lists all pads before the axes first, then all behind them: x1_begin, x2_begin, ..., x1_end, x2_end.
    pads = call.attribute("pads") or [0] * 2 * rank
    sides: Sides = tuple((pads[i], pads[i + rank]) for i in range(rank))
    explicit = Window(tuple(kernel), strides, dilations, sides)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pairs = (
            _same(size, reach, stride, mode) for size, reach, stride in zip(sizes, explicit.reach, strides, strict=True)
        )
        return Window(explicit.kernel, strides, dilations, tuple(pairs))
    return Window(explicit.kernel, strides, dilations, ((0, 0),) * rank) if mode == "VALID" else explicit


def _same(size: Any, reach: int, stride: int, mode: str) -> tuple[Any, Any]:
    """Return pads that give ceil(size / stride) outputs; an odd pad goes after the axis, with SAME_LOWER before it."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    half = total // 2
    return (half, total - half) if mode == "SAME_UPPER" else (total - half, half)


def with_ceil(base: Window, sizes: list[Any]) -> Window:
    """Return the window with padding after each axis such that the last, partial window counts (`ceil_mode`).

    Args:
        base: The window without `ceil_mode`.
        sizes: The spatial sizes of the input.

    Returns:
        The window with the larger pads.
    """
    pads = []
    for (before, after), size, reach, stride in zip(base.pads, sizes, base.reach, base.strides, strict=True):
        outputs = -(-(size + before + after - reach) // stride) + 1
        # Windows that begin in the end padding are ignored: stated by MaxPool and AveragePool since opset 22 (the
        # output shape formula of earlier versions leaves it open), and the behaviour of torch at all times.
        if (outputs - 1) * stride >= size + before:
            outputs -= 1
        pads.append((before, max((outputs - 1) * stride + reach - size - before, after)))
    return Window(base.kernel, base.strides, base.dilations, tuple(pads))
