"""A report as Markdown: what needs a look first, long tables folded away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.reports._shared.cells import (
    ARTIFACT_HEADER,
    BENCH_HEADER,
    CHANGE_HEADER,
    CHANGE_LEFT,
    EMULATED_HEADER,
    LAYERS_HEADER,
    LAYERS_LEFT,
    LEFT,
    VALIDATED_HEADER,
    VALIDATED_LEFT,
    artifact_cells,
    bench_cells,
    benches_by_device,
    change_cells,
    conclusion,
    emulated_cells,
    emulated_note,
    summary_cells,
    tier_note,
    validated_cells,
)

_FOLD_FROM = 20
"""A table of more lines is folded away: a comment on a pull request is read, not scrolled through."""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def markdown_table(header: tuple[str, ...], rows: Iterable[Iterable[str]], *, left: int = LEFT) -> str:
    """A table whose first `left` columns are flush left, the others right."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "".join([_line(header), _line(rule), *map(_line, rows)])


def folded(title: str, text: str) -> str:
    """The text behind a line that opens it, as Markdown hosts show it."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n</details>\n"


def _long(title: str, rows: Sequence[object], text: str) -> str:
    return text if len(rows) <= _FOLD_FROM else folded(title, text)


def changes_section(changes: ChangeReport) -> str:
    """The changes in one table, the worst first."""
    if not changes.reported:
        return f"{changes.sentence}.\n"
    table = markdown_table(CHANGE_HEADER, map(change_cells, changes.reported), left=CHANGE_LEFT)
    return f"{changes.sentence}.\n\n{_long(f'{len(changes.reported)} changes', changes.reported, table)}"


def _failed(report: Report) -> str:
    """Who broke which rule, by how much."""
    if not report.failed:
        return ""
    return "\n## Failed\n\n" + "".join(f"- {verdict.sentence}\n" for verdict in report.failed)


def _undecided(report: Report) -> str:
    found = [verdict for row in report.rows for verdict in row.verdicts if verdict.undecided and verdict.passed]
    return "\n## Undecided\n\n" + "".join(f"- {verdict.sentence}\n" for verdict in found) if found else ""


def _benches(report: Report) -> str:
    parts = []
    for device, items in benches_by_device(report).items():
        table = markdown_table(BENCH_HEADER, map(bench_cells, items))
        text = f"{table}\n{_lines(tier_note(items[0].host))}\n"
        emulated = [cells for item in items if (cells := emulated_cells(item))]
        if emulated:
            text += f"\n{markdown_table(EMULATED_HEADER, emulated)}\n{_lines(emulated_note(items))}\n"
        parts.append(f"\n## {device}\n\n{_long(f'{len(items)} benches', items, text)}")
    return "".join(parts)


def _emulated(report: Report) -> str:
    """The verdicts on emulated cores."""
    found = [item for row in report.rows for item in row.emulated]
    if not found:
        return ""
    table = markdown_table(VALIDATED_HEADER, map(validated_cells, found), left=VALIDATED_LEFT)
    return f"\n## On emulated cores\n\n{_long(f'{len(found)} validations', found, table)}"


def _layers(report: Report) -> str:
    """Where the error comes from."""
    found = [row.layers for row in report.rows if row.layers is not None]
    if not found:
        return ""
    table = markdown_table(LAYERS_HEADER, map(summary_cells, found), left=LAYERS_LEFT)
    return f"\n## Error by layer\n\n{_long(f'{len(found)} artifacts', found, table)}"


def _lines(text: str) -> str:
    """Each line on a line of its own: Markdown joins those that follow one another."""
    return text.replace("\n", "  \n")


def report_text(report: Report, title: str) -> str:
    """The whole report: verdict, what failed, what changed, then all artifacts and benches."""
    table = markdown_table(ARTIFACT_HEADER, map(artifact_cells, report.rows))
    parts = [f"# {title}\n\n{conclusion(report)}.\n", _failed(report), _undecided(report)]
    if report.changes is not None:
        parts.append(f"\n## Changes against {report.changes.old}\n\n{changes_section(report.changes)}")
    parts.append(f"\n## Artifacts\n\n{_long(f'{len(report.rows)} artifacts', report.rows, table)}")
    return "".join([*parts, _layers(report), _emulated(report), _benches(report)])
