"""The contract of a report format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.errors import InputError
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report


class ReportFormat(ABC):
    """One format. `color` is for terminals; other formats leave it."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def render(self, report: Report, *, color: bool = False) -> str:
        """The whole report as text that ends with a line feed."""

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        """What two runs differ in, as text that ends with a line feed. Raises InputError where the format cannot."""
        raise InputError(f"the format {self.name} does not show what changed between two runs")


REPORTS: PluginKind[ReportFormat] = PluginKind("edgekit.reports", "REPORT", ReportFormat)  # type: ignore[type-abstract]
