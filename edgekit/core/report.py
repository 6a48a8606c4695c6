"""What the reports are made of: one row an artifact, one line a bench, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.core.artifact import Artifact
from edgekit.core.budgets import Verdict
from edgekit.core.changes import Changes
from edgekit.core.measurement import Measurement
from edgekit.core.source import SourceModel
from edgekit.core.validation import Validation

REPORT_SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One artifact and what the stages found out about it; None and empty where a stage has not run."""

    artifact: Artifact
    validation: Validation | None
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no verdict on it failed."""
        return all(verdict.passed for verdict in self.verdicts)


@dataclass(frozen=True)
class Report:
    """The whole build folder. `edgekit` is the version that wrote it, `host` the machine that it ran on.

    `class_names` are those of a model's classes, where edgekit knows the model and it says; `changes` is what differs
    from a baseline, where one was given.
    """

    edgekit: str
    host: str
    sources: tuple[SourceModel, ...]
    rows: tuple[Row, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changes: Changes | None = None

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Every verdict that failed."""
        return tuple(verdict for row in self.rows for verdict in row.verdicts if not verdict.passed)

    @property
    def verdict_count(self) -> int:
        """How many rules were judged."""
        return sum(len(row.verdicts) for row in self.rows)
