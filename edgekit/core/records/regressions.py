"""The changes between two runs, which the JSON report contains under `changes`: one value of one artifact each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.core.errors import InputError
from edgekit.core.values.tiers import is_repeatable

BETTER, WORSE, ALLOWED, SAME, NEW, REMOVED = "better", "worse", "allowed", "same", "new", "gone"
INCOMPARABLE = "not comparable"
_STATES_BY_SEVERITY = (WORSE, REMOVED, ALLOWED, BETTER, NEW, INCOMPARABLE)


@dataclass(frozen=True)
class RegressionThresholds:
    """How much worse a value may become before a gate reports it.

    Attributes:
        share: The relative threshold of values that are reproducible: size, instructions, latency of repeatable tiers.
        noisy: The relative threshold of values that are measured on a host: latency of the host tier, peak memory.
        metric: The absolute threshold of the task metric, in its own unit: 0.01 is one point of accuracy.

    Raises:
        InputError: A threshold is negative, infinite or NaN.
    """

    share: float = 0.02
    noisy: float = 0.2
    metric: float = 0.01

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("noisy", self.noisy), ("metric", self.metric)):
            # NaN is not larger than any figure: every regression would be allowed.
            if not 0 <= value < math.inf:
                raise InputError(f"the threshold {name} must be a finite number of at least 0 (got {value})")

    def of(self, rule: str) -> float:
        """Return the threshold of a rule.

        Args:
            rule: A rule, as in `MetricChange.rule`.

        Returns:
            The absolute threshold for `metric`, the relative one for any other rule.
        """
        if rule == "metric":
            return self.metric
        return self.share if is_repeatable(rule) else self.noisy


# Rule -> the words for worse and for better; any other rule is a latency.
_WORDS = {
    "size_bytes": ("larger", "smaller"),
    "instructions": ("more", "fewer"),
    "peak_memory_bytes": ("more", "less"),
    "metric": ("less accurate", "more accurate"),
}


@dataclass(frozen=True)
class MetricChange:
    """One value of an artifact in two runs.

    Attributes:
        model: The model's name.
        kind: The kind of its source.
        variant: The artifact's variant.
        rule: A budget's rule (`size_bytes`, `latency_ms.host`, …), `metric` for the task metric, `artifact` for the
            artifact itself, or `verdict:<rule>` for a rule with another verdict (1 passed, 0 failed).
        before: The value in the earlier run, or None.
        after: The value in the later run, or None.
        state: `better`, `worse`, `allowed`, `same`, `new`, `gone` or `not comparable`.
        device: The device profile, for values that depend on it.
        metric: The name of the task metric, for the rule `metric`.
        note: Why the values cannot be compared.
    """

    model: str
    kind: str
    variant: str
    rule: str
    before: float | None
    after: float | None
    state: str
    device: str | None = None
    metric: str | None = None
    note: str = ""

    @property
    def relative(self) -> float | None:
        """`(after - before) / before`, or None if it is not defined."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return (self.after - self.before) / self.before

    @property
    def word(self) -> str:
        """The state in the words of the rule, such as larger, slower or less accurate."""
        if self.state not in (WORSE, ALLOWED, BETTER) or self.rule.startswith("verdict:"):
            return self.state
        worse, better = _WORDS.get(self.rule, ("slower", "faster"))
        return {WORSE: worse, BETTER: better}.get(self.state, f"{worse}, allowed")

    @property
    def broken(self) -> bool:
        """Whether a gate fails: the value is worse by more than the threshold, or the artifact was removed."""
        return self.state in (WORSE, REMOVED)


@dataclass(frozen=True)
class ChangeReport:
    """The comparison of two runs.

    Attributes:
        old: The name of the earlier run's report file.
        new: The name of the later run's.
        items: All values that were compared.
    """

    old: str
    new: str
    items: tuple[MetricChange, ...]

    @property
    def reported(self) -> tuple[MetricChange, ...]:
        """The changes without unchanged values, the worst first."""
        different = (change for change in self.items if change.state != SAME)
        return tuple(sorted(different, key=lambda change: _STATES_BY_SEVERITY.index(change.state)))

    @property
    def broken(self) -> tuple[MetricChange, ...]:
        """The changes that fail a gate."""
        return tuple(change for change in self.items if change.broken)

    def count(self, state: str) -> int:
        """Return the number of values in a state."""
        return sum(change.state == state for change in self.items)

    @property
    def sentence(self) -> str:
        """The number of values in each state, in words."""
        counts = [f"{count} {state}" for state in _STATES_BY_SEVERITY if (count := self.count(state))]
        return f"{len(self.items)} figures compared: " + (", ".join(counts) if counts else "nothing changed")


def classify_change(before: float, after: float, allowed: float, noise: float) -> str:
    """Classify the change of a value of which less is better.

    Args:
        before: The value in the earlier run.
        after: The value in the later run.
        allowed: The growth up to which the change is allowed, in the value's own unit.
        noise: The difference up to which the values are the same, in the value's own unit.

    Returns:
        `SAME`, `BETTER`, `ALLOWED` or `WORSE`.
    """
    if abs(after - before) <= noise:
        return SAME
    if after < before:
        return BETTER
    return WORSE if after > before + allowed else ALLOWED
