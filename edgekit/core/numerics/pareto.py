"""The Pareto front of a set of candidates."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[bool, ...]:
    """Return which points lie on the Pareto front.

    A point is off the front where another one dominates it: no coordinate is greater and at least one is less. Equal
    points are on the front together.

    Args:
        points: Points with the same number of coordinates; less is better in each of them.

    Returns:
        For each point whether it is on the front.
    """
    # Quadratic, which is fine for the tens of artifacts of a report.
    return tuple(not any(_dominates(other, point) for other in points) for point in points)


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)
