"""The summary of a GitHub Actions step: edgekit report --format github-summary >> "$GITHUB_STEP_SUMMARY"."""

from __future__ import annotations

from edgekit.contracts.report import ReportFormat
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.reports._shared.markdown import changes_section, report_text

LIMIT_BYTES = 1024 * 1024
"""GitHub refuses the summary of a step that is larger."""
_CUT = "\n\nThis summary was cut at GitHub's limit of 1 MiB.\n"


def _within(text: str) -> str:
    """The text, cut at the end of a line where it is larger than GitHub takes."""
    raw = text.encode()
    if len(raw) <= LIMIT_BYTES:
        return text
    kept = raw[: LIMIT_BYTES - len(_CUT)].decode(errors="ignore")
    return kept[: kept.rindex("\n")] + _CUT


class GithubSummary(ReportFormat):
    """For the page of a workflow run: the same as Markdown, under a mark that is seen from afar."""

    name = "github-summary"
    suffix = ".md"

    def render(self, report: Report, *, color: bool = False) -> str:
        return _within(report_text(report, f"{':x:' if report.failed else ':white_check_mark:'} edgekit"))

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        mark = ":x:" if changes.broken else ":white_check_mark:"
        return _within(f"# {mark} edgekit: {changes.old} against {changes.new}\n\n{changes_section(changes)}")


REPORT = GithubSummary()
