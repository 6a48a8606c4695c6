"""The result of a precision search (`tune --json`): constraints, candidates, Pareto front and layer sensitivity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgekit.core.records.validation import Drift
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.tiers import find_tier

Preference = Literal["latency", "size", "accuracy"]


@dataclass(frozen=True)
class Constraints:
    """The limits that the winner must meet.

    Attributes:
        max_drop: The largest `Candidate.drop`, in its unit.
        drop_name: What the drop measures, for messages.
        drop_factor: The factor by which the drop is multiplied for messages.
        drop_unit: The unit of the multiplied drop.
        max_size_bytes: The largest size, or None.
        max_latency_ms: The largest latency in ms in the tier of the search, or None.
        max_float_share: The largest share of the weights that layers may keep in float.
    """

    max_drop: float
    drop_name: str = "drop"
    drop_factor: float = 100.0
    drop_unit: str = "points"
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None
    max_float_share: float = 0.25

    def format_drop(self, drop: float) -> str:
        """Format a drop in its unit: `0.0131` of accuracy is `1.31 points`."""
        return f"{self.drop_factor * drop:.4g} {self.drop_unit}".strip()


@dataclass(frozen=True)
class Candidate:
    """A variant that the search converted and measured.

    Attributes:
        recipe: The recipe that it was converted with.
        size_bytes: The size of the model files.
        sha256: The digest of the model file.
        sqnr_db: The SQNR of the worst output on the golden samples, in dB; None if all outputs are equal.
        drop: The drop of the task metric on the test set if there are labels, else the relative error of the outputs,
            `10^(-SQNR / 20)`.
        drift: The drift with its statistics, if there are labels.
        failures: One clause for each tolerance of its precision that is exceeded.
        float_share: The share of the weights that layers keep in float.
        latency_ms: The latency in ms, if it was measured.
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
        """Return whether its outputs are within the limits, regardless of size and latency."""
        return not self.failures and self.drop <= constraints.max_drop

    def breaks(self, constraints: Constraints) -> tuple[str, ...]:
        """Return the names of the violated constraints.

        Args:
            constraints: The limits.

        Returns:
            Some of `drop`, `outputs` (a tolerance of its precision), `size` and `latency`.
        """
        size, latency = constraints.max_size_bytes, constraints.max_latency_ms
        is_violated = {
            "drop": self.drop > constraints.max_drop,
            "outputs": bool(self.failures),
            "size": size is not None and self.size_bytes > size,
            "latency": latency is not None and self.latency_ms is not None and self.latency_ms > latency,
        }
        return tuple(name for name, violated in is_violated.items() if violated)

    def broken(self, constraints: Constraints) -> tuple[str, ...]:
        """Describe the violated constraints.

        Args:
            constraints: The limits.

        Returns:
            One clause for each, which says by how much it is exceeded.
        """
        clauses = list(self.failures)
        if self.drop > constraints.max_drop:
            drop, excess = (constraints.format_drop(value) for value in (self.drop, self.drop - constraints.max_drop))
            clauses.append(f"{constraints.drop_name} {drop} is {excess} too much")
        max_size = constraints.max_size_bytes
        if max_size is not None and self.size_bytes > max_size:
            excess = format_bytes(self.size_bytes - max_size)
            clauses.append(f"size {format_bytes(self.size_bytes)} is {excess} too large")
        max_latency = constraints.max_latency_ms
        if max_latency is not None and self.latency_ms is not None and self.latency_ms > max_latency:
            excess = format_ms(self.latency_ms - max_latency)
            clauses.append(f"latency {format_ms(self.latency_ms)} is {excess} too long")
        return tuple(clauses)

    def meets(self, constraints: Constraints) -> bool:
        """Return whether all constraints are met. A latency that was not measured does not meet a limit."""
        unknown = constraints.max_latency_ms is not None and self.latency_ms is None
        return not unknown and not self.breaks(constraints)


def dominates(left: Candidate, right: Candidate) -> bool:
    """Return whether a candidate dominates another one (Pareto).

    Args:
        left: The candidate that may dominate.
        right: The candidate that may be dominated.

    Returns:
        True if `left` is not worse than `right` in size, drop and latency, and better in at least one of them. The
        latency counts only if both have one.
    """
    pairs = [(float(left.size_bytes), float(right.size_bytes)), (left.drop, right.drop)]
    if left.latency_ms is not None and right.latency_ms is not None:
        pairs.append((left.latency_ms, right.latency_ms))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the Pareto front: the candidates that no other dominates."""
    return tuple(candidate for candidate in candidates if not any(dominates(rival, candidate) for rival in candidates))


def best(candidates: Iterable[Candidate], preference: Preference) -> Candidate | None:
    """Return the best candidate by a preference.

    Args:
        candidates: Candidates that meet the constraints.
        preference: `latency`: the smallest of those within the host tier's noise of the fastest. `size`: the smallest.
            `accuracy`: the one with the smallest drop. Ties are decided by the other criteria.

    Returns:
        The best candidate, or None if there is none.
    """
    eligible = list(candidates)
    if preference == "latency" and all(candidate.latency_ms is not None for candidate in eligible):
        fastest_ms = min((candidate.latency_ms or 0.0 for candidate in eligible), default=0.0)
        eligible = [
            candidate
            for candidate in eligible
            if (candidate.latency_ms or 0.0) <= (1 + find_tier("host").noise) * fastest_ms
        ]
    size_first = preference != "accuracy"
    return min(eligible, key=lambda candidate: _rank(candidate, size_first=size_first), default=None)


def _rank(candidate: Candidate, *, size_first: bool) -> tuple[float, ...]:
    """Return a sort key: smaller is better."""
    size, drop = candidate.size_bytes, candidate.drop
    error = -math.inf if candidate.sqnr_db is None else -candidate.sqnr_db
    latency_ms = math.inf if candidate.latency_ms is None else candidate.latency_ms
    return (size, drop, error, latency_ms) if size_first else (drop, error, size, latency_ms)


def nearest(candidates: Sequence[Candidate], constraints: Constraints) -> Candidate:
    """Return the candidate that is nearest to meeting the constraints.

    Args:
        candidates: Candidates that all violate a constraint.
        constraints: The limits.

    Returns:
        The candidate that violates the fewest constraints; of several, the one with the smallest excess as a factor.
    """

    def excess(candidate: Candidate) -> tuple[float, float]:
        ratios = [_ratio(candidate.drop, constraints.max_drop)]
        if constraints.max_size_bytes is not None:
            ratios.append(_ratio(candidate.size_bytes, constraints.max_size_bytes))
        if constraints.max_latency_ms is not None:
            ratios.append(_ratio(candidate.latency_ms or 0.0, constraints.max_latency_ms))
        return sum(ratio > 1 for ratio in ratios) + bool(candidate.failures), max(ratios)

    return min(candidates, key=excess)


def _ratio(value: float, limit: float) -> float:
    if limit > 0:
        return value / limit
    return 1.0 if value <= limit else math.inf


@dataclass(frozen=True)
class LayerGroup:
    """Layers that the search returns to float together.

    Attributes:
        names: The names of the layers.
        title: The name of the group, for reports.
        weights: The number of their weights.
    """

    names: tuple[str, ...]
    title: str
    weights: int


@dataclass(frozen=True)
class LayerSensitivity:
    """The effect on the outputs of keeping one group of layers in float.

    Attributes:
        group: The group.
        gain_db: The increase of the SQNR on the golden samples when only this group is in float, in dB.
        share: The group's share of all weights.
        metric_gain: The decrease of the drop on the test samples, or None without labels.
        alone_db: The SQNR when only this group is quantized, in dB, if it was measured.
    """

    group: LayerGroup
    gain_db: float
    share: float
    metric_gain: float | None = None
    alone_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the key of the group is `unit`, as in earlier versions."""
        values = asdict(self)
        return {"unit": values.pop("group"), **values}


@dataclass(frozen=True)
class Tuning:
    """The result of a precision search.

    Attributes:
        model: The model's name.
        kind: The kind of its source.
        target: The target.
        constraints: The limits.
        preference: What the best candidate is chosen by.
        candidates: All variants that were converted and measured.
        sensitivities: The sensitivity of each group of layers that was tested.
        winner: The best candidate that meets the constraints, or None.
        nearest: The winner, or else the candidate that is nearest to meeting the constraints.
        judged_by: What the drop measures.
        device: The device of the latencies.
        tier: The tier of the latencies.
        stopped: Whether the time limit ended the search.
        seconds: The duration of the search.
        notes: What a reader of the result has to know.
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
        """The Pareto front of the candidates."""
        return pareto_front(self.candidates)
