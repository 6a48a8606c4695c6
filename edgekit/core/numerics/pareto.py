"""Which of several candidates no other one beats in everything."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[bool, ...]:
    """Whether each point lies on the Pareto front; every coordinate counts, and less is better.

    A point is off the front when another one is nowhere worse and somewhere better. Equal points are on it together.
    """
    return tuple(not any(_dominates(other, point) for other in points) for point in points)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
