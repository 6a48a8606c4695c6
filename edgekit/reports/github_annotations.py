"""Workflow commands that GitHub Actions turns into annotations, at the file where the broken limit was set.

The syntax is that of "Workflow commands for GitHub Actions": ::error file=F,title=T::message, with %, CR and LF as %25,
%0D and %0A, in properties also : and , as %3A and %2C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.contracts.report import ReportFormat
from edgekit.core.records.regressions import ChangeReport, MetricChange
from edgekit.core.records.report import Report
from edgekit.core.values.budgets import Verdict
from edgekit.reports._shared.cells import change_cells, conclusion, limit_file

SHOWN = 10
"""GitHub shows so many errors, and as many warnings, of one step."""


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _command(level: str, title: str, message: str, file: str | None = None) -> str:
    place = f"file={_property(file)}," if file else ""
    return f"::{level} {place}title={_property(title)}::{_escaped(message)}\n"


def _about(level: str, verdicts: Sequence[Verdict]) -> Iterable[str]:
    """One command a verdict; what GitHub would not show is counted in the last that it does."""
    kept = verdicts if len(verdicts) <= SHOWN else verdicts[: SHOWN - 1]
    for verdict in kept:
        title = f"{verdict.model}/{verdict.kind} {verdict.variant}: {verdict.rule}"
        yield _command(level, title, verdict.sentence, limit_file(verdict))
    if len(kept) < len(verdicts):
        yield _command(level, "edgekit", f"{len(verdicts) - len(kept)} more; see the report")


def _changed(item: MetricChange) -> str:
    subject, variant, device, figure, before, after, by, word, note = change_cells(item)
    where = f" on {device}" if item.device else ""
    return f"{subject} {variant}{where}: {figure} {before} -> {after} ({by}): {word}{f'; {note}' if note else ''}"


class GithubAnnotations(ReportFormat):
    """For the log of a workflow run: GitHub shows each line at its file and on the run's page."""

    name = "github-annotations"
    suffix = ".txt"

    def render(self, report: Report, *, color: bool = False) -> str:
        undecided = [item for row in report.rows for item in row.verdicts if item.undecided and item.passed]
        lines = [*_about("error", report.failed), *_about("warning", undecided)]
        changes = self.render_changes(report.changes) if report.changes is not None else ""
        return "".join([*lines, _command("notice", "edgekit", conclusion(report)), changes])

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        kept = changes.broken if len(changes.broken) <= SHOWN else changes.broken[: SHOWN - 1]
        lines = [_command("error", "edgekit: worse than before", _changed(item)) for item in kept]
        if len(kept) < len(changes.broken):
            lines.append(_command("error", "edgekit", f"{len(changes.broken) - len(kept)} more; see the report"))
        return "".join([*lines, _command("notice", "edgekit", changes.sentence)])


REPORT = GithubAnnotations()
