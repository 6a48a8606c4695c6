"""Budgets and verdicts. Of several limits on one figure the strictest wins, and the verdict says whose it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from edgekit.core.units import format_bytes, format_count, format_ms
from edgekit.core.values.specs import TUNED

CHECK_FILE = "check.json"
"""Where a run keeps the verdicts on an artifact."""

TIERS = ("analytic", "host", "emulated", "device")
Tier = Literal["analytic", "host", "emulated", "device"]


@dataclass(frozen=True)
class Budget:
    """A limit on one figure of the artifacts whose variant matches the pattern (`*`, `tflite:*`, `*:int8` …).

    `rule` is `size_bytes`, `peak_memory_bytes`, `drift`, `instructions`, or `latency_ms.<tier>`. `origin` says where it
    was set.
    """

    rule: str
    limit: float
    origin: str
    variant: str = "*"

    def covers(self, variant: str) -> bool:
        """Whether it is about this variant; what is asked of a variant is asked of it tuned too."""
        return any(fnmatchcase(name, self.variant) for name in (variant, variant.removesuffix(f"-{TUNED}")))


@dataclass(frozen=True)
class BudgetTable:
    """Budgets as a model.toml, a device profile or the command line gives them: sizes in bytes, latency in ms by tier.

    `drift` is in the unit of the task metric: 0.01 is one point of accuracy. `instructions` are those of one inference
    on the device's emulated core.
    """

    variant: str = "*"
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    drift: float | None = None
    latency_ms: tuple[tuple[str, float], ...] = ()
    instructions: int | None = None

    def budgets(self, origin: str) -> tuple[Budget, ...]:
        """One Budget a limit that is set."""
        limits: list[tuple[str, float | None]] = [
            ("size_bytes", self.size_bytes),
            ("peak_memory_bytes", self.peak_memory_bytes),
            ("drift", self.drift),
            ("instructions", self.instructions),
            *((f"latency_ms.{tier}", limit) for tier, limit in self.latency_ms),
        ]
        return tuple(Budget(rule, limit, origin, self.variant) for rule, limit in limits if limit is not None)


def strictest(budgets: Iterable[Budget], variant: str) -> tuple[Budget, ...]:
    """For each rule the lowest limit that covers the variant; of equal ones the first. Sorted by rule."""
    best: dict[str, Budget] = {}
    for budget in budgets:
        known = best.get(budget.rule)
        if budget.covers(variant) and (known is None or budget.limit < known.limit):
            best[budget.rule] = budget
    return tuple(best[rule] for rule in sorted(best))


@dataclass(frozen=True)
class Verdict:
    """One rule, judged on one artifact. `figure` is None when nothing was measured: a gate does not pass on trust.

    `undecided` says why another test set might judge otherwise, and what would decide it; empty where it would not.
    """

    model: str
    kind: str
    variant: str
    rule: str
    figure: float | None
    limit: float | None
    passed: bool
    origin: str
    device: str | None = None
    detail: str = ""
    undecided: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        subject = f"{self.model}/{self.kind} {self.variant}" + (f" on {self.device}" if self.device else "")
        if self.figure is None or self.limit is None:
            return f"{subject}: {self.rule}: {self.detail or ('passed' if self.passed else 'failed')}"
        relation = "keeps within" if self.passed else "breaks"
        figure, limit = (format_rule(self.rule, value) for value in (self.figure, self.limit))
        more = "".join(f"; {text}" for text in (self.detail, self.undecided) if text)
        return f"{subject}: {self.rule} {figure} {relation} the limit {limit}, set in {self.origin}{more}"


def format_rule(rule: str, value: float) -> str:
    """The value in the unit of its rule."""
    if rule.endswith("_bytes"):
        return format_bytes(value)
    if rule == "instructions":
        return format_count(value)
    return format_ms(value) if rule.startswith("latency_ms") else f"{value:.4g}"


def judge(
    budget: Budget, figure: float | None, *, model: str, kind: str, variant: str, device: str | None, missing: str
) -> Verdict:
    """The verdict on one figure; `missing` is what to say, and to do, when there is none."""
    passed = figure is not None and figure <= budget.limit
    detail = missing if figure is None else ""
    return Verdict(model, kind, variant, budget.rule, figure, budget.limit, passed, budget.origin, device, detail)
