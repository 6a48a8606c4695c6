"""A report as Markdown: failures and changes first, long tables collapsed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.core.escape import markdown, markdown_cell
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.reports._shared.cells import (
    ARTIFACT_HEADER,
    BENCH_HEADER,
    BROWSER_HEADER,
    CHANGE_HEADER,
    CHANGE_LEFT,
    DEVICE_HEADER,
    EMULATED_HEADER,
    LAYERS_HEADER,
    LAYERS_LEFT,
    LEFT,
    RUNTIME_VERSIONS_HEADER,
    RUNTIME_VERSIONS_LEFT,
    VALIDATED_HEADER,
    VALIDATED_LEFT,
    artifact_cells,
    bench_cells,
    benches_by_device,
    browser_cells,
    change_cells,
    conclusion,
    device_cells,
    device_note,
    emulated_cells,
    emulated_note,
    runtime_version_rows,
    summary_cells,
    synthetic_note,
    tier_note,
    validated_cells,
    validated_title,
)

# Longer tables are collapsed, so that a comment on a pull request fits a screen.
_MAX_VISIBLE_ROWS = 20


def _table_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def markdown_table(header: tuple[str, ...], rows: Iterable[Iterable[str]], *, left: int = LEFT) -> str:
    """Return a Markdown table; all cells are literal text.

    Args:
        header: The names of the columns.
        rows: The cells of each row, one per column.
        left: The number of leading columns that are aligned left; the others are aligned right.
    """
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "".join(
        [
            _table_line(map(markdown_cell, header)),
            _table_line(rule),
            *(_table_line(map(markdown_cell, row)) for row in rows),
        ]
    )


def collapsed(title: str, text: str) -> str:
    """Return the text as a collapsed section: HTML that GitHub and GitLab render inside Markdown."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n</details>\n"


def _collapsed_if_long(title: str, rows: Sequence[object], text: str) -> str:
    return text if len(rows) <= _MAX_VISIBLE_ROWS else collapsed(title, text)


def changes_section(changes: ChangeReport) -> str:
    """Return the changes in one table, the worst first."""
    sentence = f"{markdown(changes.sentence)}.\n"
    if not changes.reported:
        return sentence
    table = markdown_table(CHANGE_HEADER, map(change_cells, changes.reported), left=CHANGE_LEFT)
    return f"{sentence}\n{_collapsed_if_long(f'{len(changes.reported)} changes', changes.reported, table)}"


def _failed(report: Report) -> str:
    """Return the sentence of each failed rule."""
    if not report.failed:
        return ""
    return "\n## Failed\n\n" + "".join(f"- {markdown(verdict.sentence)}\n" for verdict in report.failed)


def _undecided(report: Report) -> str:
    undecided = [verdict for row in report.rows for verdict in row.verdicts if verdict.undecided and verdict.passed]
    return (
        "\n## Undecided\n\n" + "".join(f"- {markdown(verdict.sentence)}\n" for verdict in undecided)
        if undecided
        else ""
    )


def _benches(report: Report) -> str:
    parts = []
    for device, benches in benches_by_device(report).items():
        table = markdown_table(BENCH_HEADER, map(bench_cells, benches))
        text = f"{table}\n{_with_line_breaks(tier_note(benches[0].host))}\n"
        emulated = [cells for bench in benches if (cells := emulated_cells(bench))]
        if emulated:
            text += f"\n{markdown_table(EMULATED_HEADER, emulated)}\n{_with_line_breaks(emulated_note(benches))}\n"
        measured = [cells for bench in benches if (cells := device_cells(bench))]
        in_browser = [cells for bench in benches if (cells := browser_cells(bench))]
        if measured:
            text += f"\n{markdown_table(DEVICE_HEADER, measured)}\n{_with_line_breaks(device_note(benches))}\n"
        if in_browser:
            text += f"\n{markdown_table(BROWSER_HEADER, in_browser)}\n"
        parts.append(f"\n## {markdown(device)}\n\n{_collapsed_if_long(f'{len(benches)} benches', benches, text)}")
    return "".join(parts)


def _emulated(report: Report) -> str:
    validations = [validation for row in report.rows for validation in row.emulated]
    if not validations:
        return ""
    table = markdown_table(VALIDATED_HEADER, map(validated_cells, validations), left=VALIDATED_LEFT)
    text = _collapsed_if_long(f"{len(validations)} validations", validations, table)
    return f"\n## {validated_title(validations).capitalize()}\n\n{text}"


def _runtime_versions(report: Report) -> str:
    rows = [
        (record.device, *cells)
        for row in report.rows
        for record in row.runtime_versions
        for cells in runtime_version_rows(row.artifact, record)
    ]
    if not rows:
        return ""
    table = markdown_table(("device", *RUNTIME_VERSIONS_HEADER), rows, left=RUNTIME_VERSIONS_LEFT + 1)
    return f"\n## Versions of the runtime\n\n{_collapsed_if_long(f'{len(rows)} counts', rows, table)}"


def _layers(report: Report) -> str:
    diffs = [row.layers for row in report.rows if row.layers is not None]
    if not diffs:
        return ""
    table = markdown_table(LAYERS_HEADER, map(summary_cells, diffs), left=LAYERS_LEFT)
    return f"\n## Error by layer\n\n{_collapsed_if_long(f'{len(diffs)} artifacts', diffs, table)}"


def _with_line_breaks(text: str) -> str:
    """Return lines of literal text with hard line breaks: Markdown joins consecutive lines otherwise."""
    return "  \n".join(map(markdown, text.split("\n")))


def report_text(report: Report, title: str) -> str:
    """Return the whole report under a title: conclusion, failures, changes, then all artifacts and benches."""
    table = markdown_table(ARTIFACT_HEADER, map(artifact_cells, report.rows))
    parts = [f"# {title}\n\n{conclusion(report)}.\n", _failed(report), _undecided(report)]
    if report.changes is not None:
        parts.append(f"\n## Changes against {markdown(report.changes.old)}\n\n{changes_section(report.changes)}")
    parts.append(f"\n## Artifacts\n\n{_collapsed_if_long(f'{len(report.rows)} artifacts', report.rows, table)}")
    note = synthetic_note(report)
    parts += [f"\n{_with_line_breaks(note)}\n"] if note else []
    return "".join([*parts, _layers(report), _emulated(report), _benches(report), _runtime_versions(report)])
