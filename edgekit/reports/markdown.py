"""Markdown, for a pull request or a README."""

from __future__ import annotations

from edgekit.contracts.report import ReportFormat
from edgekit.core import escape
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.reports._shared.markdown import changes_section, report_text


class MarkdownReport(ReportFormat):
    """Markdown for pull requests, issues and READMEs."""

    name = "markdown"
    suffix = ".md"

    def render(self, report: Report, *, color: bool = False) -> str:
        return report_text(report, "edgekit report")

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        title = escape.markdown(f"edgekit: {changes.old} against {changes.new}")
        return f"# {title}\n\n{changes_section(changes)}"


REPORT = MarkdownReport()
