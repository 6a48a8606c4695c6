"""The result of a check: verdicts on artifacts, and what changed since a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.core.records.regressions import ChangeReport, MetricChange

if TYPE_CHECKING:  # the Python API imports this module, and must not cost its importers numpy
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.values.budgets import Verdict


@dataclass(frozen=True)
class CheckResult:
    """The verdicts on artifacts.

    Attributes:
        artifacts: The artifacts that were judged.
        verdicts: One verdict for each rule and artifact.
        changes: What changed since the baseline; None without a baseline.
    """

    artifacts: tuple[Artifact, ...]
    verdicts: tuple[Verdict, ...]
    changes: ChangeReport | None = None

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts that did not pass."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def regressions(self) -> tuple[MetricChange, ...]:
        """The changes since the baseline that are worse than allowed; none without a baseline."""
        return self.changes.broken if self.changes else ()

    @property
    def passed(self) -> bool:
        """Whether every verdict passed and nothing is worse than the baseline allows."""
        return not self.failed and not self.regressions
