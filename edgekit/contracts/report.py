"""The contract of a report format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.errors import InputError
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report


class ReportFormat(ABC):
    """A format that renders a report as text.

    A plug-in is one instance: `REPORT` in a module of `edgekit/reports`, or an entry point of the group
    `edgekit.reports`.

    Attributes:
        name: The name of the format, as in `edgekit report --format`; it equals the name of the plug-in.
        suffix: The usual file suffix with its dot, such as `.csv`.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def render(self, report: Report, *, color: bool = False) -> str:
        """Return the whole report as text.

        Args:
            report: The report: one row per artifact, and the changes against a baseline if there is one.
            color: Whether the text goes to a terminal that shows colors; formats for files ignore it.

        Returns:
            Text that ends with one line feed. The same report gives the same text.

        Raises:
            MissingDependency: A package that the format needs is not installed.
        """

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        """Return the differences between two reports as text.

        Args:
            changes: The differences.
            color: As for `render`.

        Returns:
            Text that ends with one line feed.

        Raises:
            InputError: The format cannot show differences, which is the default.
        """
        raise InputError(f"the format {self.name} cannot show the changes between two reports; use another --format")


REPORTS: PluginKind[ReportFormat] = PluginKind("edgekit.reports", "REPORT", ReportFormat)  # type: ignore[type-abstract]
