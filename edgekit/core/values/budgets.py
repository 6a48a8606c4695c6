"""Budgets and the verdicts on them: of several limits on one figure the strictest applies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgekit.core.errors import InputError
from edgekit.core.units import format_bytes, format_count, format_ms
from edgekit.core.values.typed_json import Name

# `edgekit run` writes the verdicts on an artifact to this file, in the artifact's folder.
CHECK_FILE = "check.json"

# `Budget.origin` of a limit that an option of a command sets.
COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class Budget:
    """A limit on one figure of all artifacts whose variant matches a pattern.

    Attributes:
        rule: `size_bytes`, `peak_memory_bytes`, `drift`, `instructions` or `latency_ms.<tier>`.
        limit: The largest value that passes, in the unit of the rule.
        origin: Where the limit was set, for example `models/linear/model.toml`.
        variant: Glob pattern of variants: `*`, `tflite:*`, `*:int8` …

    Raises:
        InputError: The limit is negative, infinite or NaN.
    """

    rule: str
    limit: float
    origin: str
    variant: str = "*"

    def __post_init__(self) -> None:
        # NaN is neither stricter nor looser than another limit, and infinity limits nothing.
        if not 0 <= self.limit < math.inf:
            raise InputError(
                f"{self.origin}: {self.rule}: the limit must be a finite number of at least 0 (got {self.limit})"
            )

    def covers(self, variant: str) -> bool:
        """Return whether the budget applies to a variant.

        A budget on a variant also applies to its tuned and other forms: `tflite:int8` covers `tflite:int8-tuned`.

        Args:
            variant: The variant as it is written, for example `tflite:int8`.

        Returns:
            True where the pattern matches.
        """
        target, _, precision = variant.partition(":")
        untagged = f"{target}:{precision.partition('-')[0]}"
        return any(fnmatchcase(name, self.variant) for name in (variant, untagged))


@dataclass(frozen=True)
class BudgetTable:
    """Limits for one variant pattern, as model.toml, a device profile or the command line sets them.

    Attributes:
        variant: Glob pattern of variants.
        size_bytes: Largest size of the model files.
        peak_memory_bytes: Largest peak memory of loading and one inference.
        drift: Largest loss in the unit of the task metric: 0.01 is one point of accuracy.
        latency_ms: Pairs of tier and largest latency in ms.
        instructions: Most instructions of one inference on the device's emulated core.
    """

    variant: str = "*"
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    drift: float | None = None
    latency_ms: tuple[tuple[str, float], ...] = ()
    instructions: int | None = None

    def budgets(self, origin: str) -> tuple[Budget, ...]:
        """Return one budget for each limit that is set.

        Args:
            origin: Where the limits were set.

        Returns:
            The budgets in the order of the fields.
        """
        limits: list[tuple[str, float | None]] = [
            ("size_bytes", self.size_bytes),
            ("peak_memory_bytes", self.peak_memory_bytes),
            ("drift", self.drift),
            ("instructions", self.instructions),
            *((f"latency_ms.{tier}", limit) for tier, limit in self.latency_ms),
        ]
        return tuple(Budget(rule, limit, origin, self.variant) for rule, limit in limits if limit is not None)


def strictest(budgets: Iterable[Budget], variant: str) -> tuple[Budget, ...]:
    """Return the lowest limit of each rule among the budgets that apply to a variant.

    Args:
        budgets: Budgets of all origins.
        variant: The variant as it is written, for example `tflite:int8`.

    Returns:
        One budget a rule, sorted by rule; of equal limits the first one.
    """
    lowest: dict[str, Budget] = {}
    for budget in budgets:
        previous = lowest.get(budget.rule)
        if budget.covers(variant) and (previous is None or budget.limit < previous.limit):
            lowest[budget.rule] = budget
    return tuple(lowest[rule] for rule in sorted(lowest))


@dataclass(frozen=True)
class Verdict:
    """The result of one rule on one artifact.

    Attributes:
        model: Name of the model.
        kind: Kind of the source model, for example `keras`.
        variant: The variant as it is written, for example `tflite:int8`.
        rule: The rule of the budget.
        figure: The measured value; None where there is no measurement, which counts as a failure.
        limit: The largest value that passes; None for a rule without a limit.
        passed: Whether the artifact passes.
        origin: Where the limit was set.
        device: Name of the device profile; None where the figure does not depend on a device.
        detail: Additional explanation, without a full stop.
        undecided: Why another test set might give the opposite result, and what would settle it; else empty.
    """

    model: Name
    kind: Name
    variant: Name
    rule: Name
    figure: float | None
    limit: float | None
    passed: bool
    origin: str
    device: str | None = None
    detail: str = ""
    undecided: str = ""

    @property
    def sentence(self) -> str:
        """The verdict as one sentence without a full stop."""
        subject = f"{self.model}/{self.kind} {self.variant}" + (f" on {self.device}" if self.device else "")
        if self.figure is None or self.limit is None:
            return f"{subject}: {self.rule}: {self.detail or ('passed' if self.passed else 'failed')}"
        relation = "is within" if self.passed else "exceeds"
        figure, limit = (format_rule(self.rule, value) for value in (self.figure, self.limit))
        remarks = "".join(f"; {text}" for text in (self.detail, self.undecided) if text)
        preposition = "on" if self.origin == COMMAND_LINE else "in"
        return f"{subject}: {self.rule} {figure} {relation} the limit {limit}, set {preposition} {self.origin}{remarks}"


def format_rule(rule: str, value: float) -> str:
    """Format a value with the unit of its rule.

    Args:
        rule: The rule, which determines the unit.
        value: The value in bytes, ms, instructions or the unit of the task metric.

    Returns:
        The value as text, for example `1.23 MB`.
    """
    if rule.endswith("_bytes"):
        return format_bytes(value)
    if rule == "instructions":
        return format_count(value)
    return format_ms(value) if rule.startswith("latency_ms") else f"{value:.4g}"


def judge(
    budget: Budget, figure: float | None, *, model: str, kind: str, variant: str, device: str | None, missing: str
) -> Verdict:
    """Compare one figure with its budget.

    Args:
        budget: The limit.
        figure: The measured value, or None where there is no measurement. NaN fails as well.
        model: Name of the model.
        kind: Kind of the source model.
        variant: The variant as it is written.
        device: Name of the device profile, or None.
        missing: Detail of the verdict where there is no measurement: what is missing and how to get it.

    Returns:
        The verdict; it fails where there is no measurement.
    """
    passed = figure is not None and figure <= budget.limit
    detail = missing if figure is None else ""
    return Verdict(model, kind, variant, budget.rule, figure, budget.limit, passed, budget.origin, device, detail)
