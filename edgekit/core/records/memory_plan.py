"""Where a network's tensors live while it runs: the arena of a microcontroller, and each tensor's life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arena:
    """The memory that one inference takes, in bytes: `head` holds the tensors that come and go, `tail` what stays."""

    total_bytes: int
    head_bytes: int
    tail_bytes: int


@dataclass(frozen=True)
class TensorLifetime:
    """A tensor that is computed: its size, and the first and last operator (from 0) between which it must be kept."""

    name: str
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPeak:
    """The operator at which most is alive, how much that is, and those tensors, the largest first."""

    operator: int
    size_bytes: int
    tensors: tuple[TensorLifetime, ...]


def bisect_minimum(runs: Callable[[int], bool], largest: int) -> int | None:
    """The smallest size in bytes that runs, by doubling and bisection; None where not even the largest does."""
    high = 1024
    while not runs(high):
        if high >= largest:
            return None
        high *= 2
    low = high // 2 if high > 1024 else 0  # does not run
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    return high


def memory_peak(tensor_lifetimes: Sequence[TensorLifetime]) -> MemoryPeak:
    """The peak of what is alive at the same time: no planner can do with less."""
    steps = range(max((life.last for life in tensor_lifetimes), default=0) + 1)
    alive = {step: [life for life in tensor_lifetimes if life.first <= step <= life.last] for step in steps}
    worst = max(steps, key=lambda step: sum(life.size_bytes for life in alive[step]))
    tensors = sorted(alive[worst], key=lambda life: -life.size_bytes)
    return MemoryPeak(worst, sum(life.size_bytes for life in tensors), tuple(tensors))


def render_timeline(tensor_lifetimes: Sequence[TensorLifetime], width: int = 40) -> list[str]:
    """Each tensor's life as a bar along the operators, the largest tensor's bar being full blocks."""
    steps = max((life.last for life in tensor_lifetimes), default=0) + 1
    largest = max((life.size_bytes for life in tensor_lifetimes), default=1)
    lines = []
    for life in tensor_lifetimes:
        start, end = life.first * width // steps, max(life.first * width // steps + 1, (life.last + 1) * width // steps)
        shade = "░▒▓█"[min(3, 4 * life.size_bytes // (largest + 1))]
        lines.append(" " * start + shade * (end - start) + " " * (width - end))
    return lines
