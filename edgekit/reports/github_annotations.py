"""Workflow commands that GitHub Actions shows as annotations, on the file that sets the broken limit.

The syntax is that of "Workflow commands for GitHub Actions": ::error file=F,title=T::message, with %, CR and LF as %25,
%0D and %0A, in properties also : and , as %3A and %2C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.contracts.report import ReportFormat
from edgekit.core.escape import workflow_property, workflow_value
from edgekit.core.records.regressions import ChangeReport, MetricChange
from edgekit.core.records.report import Report
from edgekit.core.values.budgets import Verdict
from edgekit.reports._shared.cells import change_cells, conclusion, limit_file

# GitHub shows at most 10 errors and 10 warnings per step ("Usage limits" of workflow commands).
MAX_ANNOTATIONS = 10


def _command(level: str, title: str, message: str, file: str | None = None) -> str:
    place = f"file={workflow_property(file)}," if file else ""
    return f"::{level} {place}title={workflow_property(title)}::{workflow_value(message)}\n"


def _verdict_commands(level: str, verdicts: Sequence[Verdict]) -> Iterable[str]:
    """Yield one command per verdict; the last one that GitHub shows counts those that it would not show."""
    shown = verdicts if len(verdicts) <= MAX_ANNOTATIONS else verdicts[: MAX_ANNOTATIONS - 1]
    for verdict in shown:
        title = f"{verdict.model}/{verdict.kind} {verdict.variant}: {verdict.rule}"
        yield _command(level, title, verdict.sentence, limit_file(verdict))
    if len(shown) < len(verdicts):
        yield _command(level, "edgekit", f"{len(verdicts) - len(shown)} more; see the report")


def _change_sentence(change: MetricChange) -> str:
    subject, variant, device, figure, before, after, difference, word, note = change_cells(change)
    where = f" on {device}" if change.device else ""
    suffix = f"; {note}" if note else ""
    return f"{subject} {variant}{where}: {figure} {before} -> {after} ({difference}): {word}{suffix}"


class GithubAnnotations(ReportFormat):
    """Annotations in the log of a workflow run: GitHub shows each one at its file and on the run's page."""

    name = "github-annotations"
    suffix = ".txt"

    def render(self, report: Report, *, color: bool = False) -> str:
        verdicts = [verdict for row in report.rows for verdict in row.verdicts]
        undecided = [verdict for verdict in verdicts if verdict.undecided and verdict.passed]
        lines = [*_verdict_commands("error", report.failed), *_verdict_commands("warning", undecided)]
        changes = self.render_changes(report.changes) if report.changes is not None else ""
        return "".join([*lines, _command("notice", "edgekit", conclusion(report)), changes])

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        shown = changes.broken if len(changes.broken) <= MAX_ANNOTATIONS else changes.broken[: MAX_ANNOTATIONS - 1]
        lines = [_command("error", "edgekit: regression", _change_sentence(change)) for change in shown]
        if len(shown) < len(changes.broken):
            lines.append(_command("error", "edgekit", f"{len(changes.broken) - len(shown)} more; see the report"))
        return "".join([*lines, _command("notice", "edgekit", changes.sentence)])


REPORT = GithubAnnotations()
