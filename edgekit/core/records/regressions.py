"""What changed between two runs: one figure of one artifact, before and now."""

from __future__ import annotations

from dataclasses import dataclass

BETTER, WORSE, ALLOWED, SAME, NEW, REMOVED = "better", "worse", "allowed", "same", "new", "gone"
INCOMPARABLE = "not comparable"


@dataclass(frozen=True)
class RegressionThresholds:
    """How much worse a figure may be before it counts as worse.

    `share` is relative, for figures that repeat: size, instructions, the analytic and the emulated tier. `noisy` is the
    same for what is measured on a host: latency of the host tier, peak memory. `metric` is a loss in the metric's own
    unit: 0.01 is a point of accuracy.
    """

    share: float = 0.02
    noisy: float = 0.2
    metric: float = 0.01

    def of(self, rule: str) -> float:
        """The allowance for a rule; absolute for `metric`, relative for the others."""
        if rule == "metric":
            return self.metric
        return self.noisy if rule in NOISY else self.share


_WORDS = {
    "size_bytes": ("larger", "smaller"),
    "instructions": ("more", "fewer"),
    "peak_memory_bytes": ("more", "less"),
    "metric": ("less accurate", "more accurate"),
}
NOISY = ("latency_ms.host", "peak_memory_bytes")


@dataclass(frozen=True)
class MetricChange:
    """One figure of an artifact in two runs; `before` or `after` is None where a run does not have it.

    `rule` is a budget's rule (`size_bytes`, `latency_ms.host` …), `metric` for the task metric named `metric`,
    `artifact` for the whole of it, or `verdict:<rule>` for a rule that was judged otherwise (1 passed, 0 failed).
    `state` is one of the words above; `note` says why something cannot be compared.
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
        """(now - before) / before; None where it is not defined."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return (self.after - self.before) / self.before

    @property
    def word(self) -> str:
        """The state as one says it of this figure: larger, slower, less accurate …"""
        if self.state not in (WORSE, ALLOWED, BETTER) or self.rule.startswith("verdict:"):
            return self.state
        worse, better = _WORDS.get(self.rule, ("slower", "faster"))
        return {WORSE: worse, BETTER: better}.get(self.state, f"{worse}, allowed")

    @property
    def broken(self) -> bool:
        """Whether a gate says no: it is worse by more than is allowed, or there no more."""
        return self.state in (WORSE, REMOVED)


@dataclass(frozen=True)
class ChangeReport:
    """Two runs, by the names of their files, and every figure that was looked at."""

    old: str
    new: str
    items: tuple[MetricChange, ...]

    @property
    def reported(self) -> tuple[MetricChange, ...]:
        """All but what stayed as it was, the worst first."""
        order = (WORSE, REMOVED, ALLOWED, BETTER, NEW, INCOMPARABLE)
        kept = (item for item in self.items if item.state != SAME)
        return tuple(sorted(kept, key=lambda item: order.index(item.state)))

    @property
    def broken(self) -> tuple[MetricChange, ...]:
        """What a gate says no to."""
        return tuple(item for item in self.items if item.broken)

    def count(self, state: str) -> int:
        """How many are in that state."""
        return sum(item.state == state for item in self.items)

    @property
    def sentence(self) -> str:
        """How many figures are in which state."""
        words = (WORSE, REMOVED, ALLOWED, BETTER, NEW, INCOMPARABLE)
        counted = [f"{count} {word}" for word in words if (count := self.count(word))]
        return f"{len(self.items)} figures compared: " + (", ".join(counted) if counted else "nothing changed")


def classify_change(before: float, after: float, allowed: float, noise: float) -> str:
    """The state of a figure of which less is better. Both limits are in its own unit: up to `allowed` it may grow, and
    within `noise` it has not moved at all."""
    if abs(after - before) <= noise:
        return SAME
    if after < before:
        return BETTER
    return WORSE if after > before + allowed else ALLOWED
