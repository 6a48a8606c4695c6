"""What a precision search judges by: constraints, candidates, the front of those that nothing beats, and blame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.core.records.validation import Drift
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.quantization_recipe import Recipe

Preference = Literal["latency", "size", "accuracy"]
NOISE = 1.1
"""Latencies on a shared machine that lie within this factor are no difference."""


@dataclass(frozen=True)
class Constraints:
    """What the winner must keep within; None does not limit.

    `max_drop` is in the unit of `Candidate.drop`, `drop_name` says what that is, `drop_factor` and `drop_unit` how it
    is printed. `max_latency_ms` is of the search's tier, `max_float_share` what part of the weights layers may keep in
    float.
    """

    max_drop: float
    drop_name: str = "drop"
    drop_factor: float = 100.0
    drop_unit: str = "points"
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None
    max_float_share: float = 0.25

    def format_drop(self, drop: float) -> str:
        """`0.0131` of accuracy is `1.31 points`."""
        return f"{self.drop_factor * drop:.4g} {self.drop_unit}".strip()


@dataclass(frozen=True)
class Candidate:
    """One variant that was made and run.

    `drop` is that of the task metric on the test set where there are labels, else the relative error of the outputs,
    10^(-SQNR / 20). `sqnr_db` is that of the worst output on the golden samples, None where all are equal. `failures`
    are the tolerances of the precision that it breaks. `float_share` is the share of weights that layers keep in float.
    """

    recipe: Recipe
    size_bytes: int
    sha256: str
    sqnr_db: float | None
    drop: float
    drift: Drift | None = None
    failures: tuple[str, ...] = ()
    float_share: float = 0.0
    latency_ms: float | None = None

    def accurate(self, constraints: Constraints) -> bool:
        """Whether its outputs are good enough, whatever its size and speed."""
        return not self.failures and self.drop <= constraints.max_drop

    def breaks(self, constraints: Constraints) -> tuple[str, ...]:
        """The names of the constraints that it breaks; `outputs` are the tolerances of its precision."""
        size, latency = constraints.max_size_bytes, constraints.max_latency_ms
        found = {
            "drop": self.drop > constraints.max_drop,
            "outputs": bool(self.failures),
            "size": size is not None and self.size_bytes > size,
            "latency": latency is not None and self.latency_ms is not None and self.latency_ms > latency,
        }
        return tuple(name for name, is_broken in found.items() if is_broken)

    def broken(self, constraints: Constraints) -> tuple[str, ...]:
        """One clause for each constraint that it breaks, and by how much."""
        found = list(self.failures)
        if self.drop > constraints.max_drop:
            told, over = (constraints.format_drop(drop) for drop in (self.drop, self.drop - constraints.max_drop))
            found.append(f"{constraints.drop_name} {told} is {over} too much")
        limit = constraints.max_size_bytes
        if limit is not None and self.size_bytes > limit:
            found.append(f"size {format_bytes(self.size_bytes)} is {format_bytes(self.size_bytes - limit)} too large")
        slow = constraints.max_latency_ms
        if slow is not None and self.latency_ms is not None and self.latency_ms > slow:
            found.append(f"latency {format_ms(self.latency_ms)} is {format_ms(self.latency_ms - slow)} too long")
        return tuple(found)

    def meets(self, constraints: Constraints) -> bool:
        """Whether it keeps within all of them; a latency that was not measured is not within a limit."""
        unknown = constraints.max_latency_ms is not None and self.latency_ms is None
        return not unknown and not self.breaks(constraints)


def dominates(one: Candidate, other: Candidate) -> bool:
    """Whether one is nowhere worse and somewhere better than the other, in the figures that both have: size, drop,
    latency."""
    pairs = [(float(one.size_bytes), float(other.size_bytes)), (one.drop, other.drop)]
    if one.latency_ms is not None and other.latency_ms is not None:
        pairs.append((one.latency_ms, other.latency_ms))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The Pareto front: those that no other beats."""
    return tuple(item for item in candidates if not any(dominates(other, item) for other in candidates))


def best(candidates: Iterable[Candidate], preference: Preference) -> Candidate | None:
    """The one to ship of those that meet the constraints; None where there is none.

    By latency: of those within `NOISE` of the fastest the smallest, then the most accurate. By size and by accuracy:
    what is equal is decided by the other two.
    """
    known = list(candidates)
    if preference == "latency" and all(item.latency_ms is not None for item in known):
        fastest = min((item.latency_ms or 0.0 for item in known), default=0.0)
        known = [item for item in known if (item.latency_ms or 0.0) <= NOISE * fastest]
    size_first = preference != "accuracy"
    return min(known, key=lambda item: _rank(item, size_first=size_first), default=None)


def _rank(item: Candidate, *, size_first: bool) -> tuple[float, ...]:
    noise = -math.inf if item.sqnr_db is None else -item.sqnr_db
    slow = math.inf if item.latency_ms is None else item.latency_ms
    return (item.size_bytes, item.drop, noise, slow) if size_first else (item.drop, noise, item.size_bytes, slow)


def nearest(candidates: Sequence[Candidate], constraints: Constraints) -> Candidate:
    """Of candidates that all break constraints the one that breaks the fewest, and those by the smallest factor."""

    def excess(item: Candidate) -> tuple[float, float]:
        ratios = [_ratio(item.drop, constraints.max_drop)]
        if constraints.max_size_bytes is not None:
            ratios.append(_ratio(item.size_bytes, constraints.max_size_bytes))
        if constraints.max_latency_ms is not None:
            ratios.append(_ratio(item.latency_ms or 0.0, constraints.max_latency_ms))
        return sum(ratio > 1 for ratio in ratios) + bool(item.failures), max(ratios)

    return min(candidates, key=excess)


def _ratio(value: float, limit: float) -> float:
    if limit > 0:
        return value / limit
    return 1.0 if value <= limit else math.inf


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are put back into float together, by name; `weights` is how many numbers they have learned."""

    names: tuple[str, ...]
    title: str
    weights: int


@dataclass(frozen=True)
class LayerSensitivity:
    """What it gains at the output to keep a unit of layers in float and nothing else.

    `gain_db` is the SQNR that this adds on the golden samples, `metric_gain` what it takes off the drop on the test
    samples (None without labels), `share` the unit's part of all weights. `alone_db`, where it was looked at, is the
    SQNR when this unit is quantized and all the rest is float.
    """

    unit: LayerGroup
    gain_db: float
    share: float
    metric_gain: float | None = None
    alone_db: float | None = None


@dataclass(frozen=True)
class Tuning:
    """What a search found out. `winner` is among the candidates; None where none meets the constraints.

    `tier` is that of the latencies, `judged_by` says what the drop is, `stopped` that the time limit ended the search.
    """

    model: str
    kind: str
    target: str
    constraints: Constraints
    preference: Preference
    candidates: tuple[Candidate, ...]
    sensitivities: tuple[LayerSensitivity, ...]
    winner: Candidate | None
    nearest: Candidate
    judged_by: str
    device: str
    tier: str
    stopped: bool
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The candidates that no other beats."""
        return pareto_front(self.candidates)
