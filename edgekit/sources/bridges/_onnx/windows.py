"""Where the windows of convolutions and poolings lie: pads by `auto_pad`, and what ceil_mode adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.sources.bridges._onnx.registry import Call

Sides = tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes; `pads` are (before, after) an axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Sides

    @property
    def symmetric(self) -> bool:
        """Whether torch's own padding can say it."""
        return all(before == after >= 0 for before, after in self.pads)

    @property
    def padding(self) -> list[Any]:
        """Torch's padding, where it is symmetric."""
        return [before for before, _ in self.pads]

    @property
    def reach(self) -> tuple[int, ...]:
        """How many elements a window spans along each axis."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))


def window(call: Call, sizes: list[Any], kernel: list[int]) -> Window:
    """The node's window for an input of these spatial sizes."""
    rank = len(kernel)
    strides = tuple(call.attribute("strides") or [1] * rank)
    dilations = tuple(call.attribute("dilations") or [1] * rank)
    mode = call.attribute("auto_pad", "NOTSET")
    pads = call.attribute("pads") or [0] * 2 * rank
    sides: Sides = tuple((pads[i], pads[i + rank]) for i in range(rank))
    made = Window(tuple(kernel), strides, dilations, sides)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pairs = (
            _same(size, reach, stride, mode) for size, reach, stride in zip(sizes, made.reach, strides, strict=True)
        )
        return Window(made.kernel, strides, dilations, tuple(pairs))
    return Window(made.kernel, strides, dilations, ((0, 0),) * rank) if mode == "VALID" else made


def _same(size: Any, reach: int, stride: int, mode: str) -> tuple[Any, Any]:
    """As many outputs as ceil(size / stride); the odd element stands after it, or before it with SAME_LOWER."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    half = total // 2
    return (half, total - half) if mode == "SAME_UPPER" else (total - half, half)


def with_ceil(found: Window, sizes: list[Any]) -> Window:
    """The window with so much after each axis that the last, partial one counts, if it begins inside."""
    pads = []
    for (before, after), size, reach, stride in zip(found.pads, sizes, found.reach, found.strides, strict=True):
        outputs = -(-(size + before + after - reach) // stride) + 1
        if (outputs - 1) * stride >= size + before:  # it would begin in the padding
            outputs -= 1
        pads.append((before, max((outputs - 1) * stride + reach - size - before, after)))
    return Window(found.kernel, found.strides, found.dilations, tuple(pads))
