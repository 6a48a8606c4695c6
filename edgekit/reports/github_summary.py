"""The job summary of GitHub Actions: edgekit report --format github-summary >> "$GITHUB_STEP_SUMMARY"."""

from __future__ import annotations

from edgekit.contracts.report import ReportFormat
from edgekit.core.escape import markdown
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.reports._shared.markdown import changes_section, report_text

# GitHub rejects a larger summary of a step ("Step isolation and limits" of job summaries).
LIMIT_BYTES = 1024 * 1024
_TRUNCATED = "\n\nThis summary was truncated to GitHub's limit of 1 MiB.\n"


def _truncated(text: str) -> str:
    """Return the text, truncated at the end of a line if it exceeds GitHub's limit."""
    raw = text.encode()
    if len(raw) <= LIMIT_BYTES:
        return text
    start = raw[: LIMIT_BYTES - len(_TRUNCATED)].decode(errors="ignore")
    return start[: start.rindex("\n")] + _TRUNCATED


class GithubSummary(ReportFormat):
    """Markdown for the page of a workflow run, with a pass or fail mark in its title."""

    name = "github-summary"
    suffix = ".md"

    def render(self, report: Report, *, color: bool = False) -> str:
        return _truncated(report_text(report, f"{':x:' if report.failed else ':white_check_mark:'} edgekit"))

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        mark = ":x:" if changes.broken else ":white_check_mark:"
        title = markdown(f"edgekit: {changes.old} against {changes.new}")
        return _truncated(f"# {mark} {title}\n\n{changes_section(changes)}")


REPORT = GithubSummary()
