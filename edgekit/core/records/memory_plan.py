"""The memory of one inference: the arena of a microcontroller and the lifetimes of tensors (`micro --json`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arena:
    """The tensor arena of TFLite Micro.

    Attributes:
        total_bytes: The size of the arena.
        head_bytes: The part for tensors that are reused within an inference.
        tail_bytes: The part for data that persist between inferences.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int


@dataclass(frozen=True)
class TensorLifetime:
    """The lifetime of a computed tensor.

    Attributes:
        name: The tensor's name.
        size_bytes: Its size.
        first: The index (from 0) of the first operator during which it must be kept.
        last: The index of the last operator during which it must be kept.
    """

    name: str
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPeak:
    """The peak of the memory that tensors occupy.

    Attributes:
        operator: The index of the operator at the peak, from 0.
        size_bytes: The sum of the sizes of all tensors at the peak.
        tensors: These tensors, the largest first.
    """

    operator: int
    size_bytes: int
    tensors: tuple[TensorLifetime, ...]


def bisect_minimum(runs: Callable[[int], bool], largest: int) -> int | None:
    """Find the smallest size at which a model runs, by doubling and bisection.

    Args:
        runs: Returns whether the model runs with a size in bytes. It must be monotonic.
        largest: The doubling ends at the first size that is not smaller than this, in bytes.

    Returns:
        The smallest size in bytes, or None if no size that was tried is sufficient.
    """
    high = 1024  # bytes; hardly any useful model runs in less
    while not runs(high):
        if high >= largest:
            return None
        high *= 2
    low = high // 2 if high > 1024 else 0  # a size at which it does not run
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    return high


def memory_peak(tensor_lifetimes: Sequence[TensorLifetime]) -> MemoryPeak:
    """Compute the peak memory of an inference, which is a lower bound for every memory planner.

    Args:
        tensor_lifetimes: The lifetimes of all computed tensors.

    Returns:
        The peak; the first one if several operators have the same.
    """
    steps = range(max((tensor.last for tensor in tensor_lifetimes), default=0) + 1)
    alive = {step: [tensor for tensor in tensor_lifetimes if tensor.first <= step <= tensor.last] for step in steps}
    peak = max(steps, key=lambda step: sum(tensor.size_bytes for tensor in alive[step]))
    tensors = sorted(alive[peak], key=lambda tensor: -tensor.size_bytes)
    return MemoryPeak(peak, sum(tensor.size_bytes for tensor in tensors), tuple(tensors))


def render_timeline(tensor_lifetimes: Sequence[TensorLifetime], width: int = 40) -> list[str]:
    """Render each tensor's lifetime as a bar along the operators.

    Args:
        tensor_lifetimes: The lifetimes.
        width: The number of characters that stand for all operators.

    Returns:
        One line of `width` characters a tensor. The shade shows the size relative to the largest tensor.
    """
    steps = max((tensor.last for tensor in tensor_lifetimes), default=0) + 1
    largest = max((tensor.size_bytes for tensor in tensor_lifetimes), default=1)
    lines = []
    for tensor in tensor_lifetimes:
        start = tensor.first * width // steps
        end = max(start + 1, (tensor.last + 1) * width // steps)  # at least one character
        shade = "░▒▓█"[min(3, 4 * tensor.size_bytes // (largest + 1))]
        lines.append(" " * start + shade * (end - start) + " " * (width - end))
    return lines
