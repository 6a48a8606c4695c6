"""Markdown tables, for a pull request or a README."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.core.report import Report
from edgekit.reports._base import (
    ARTIFACT_HEADER,
    BENCH_HEADER,
    EMULATED_HEADER,
    LEFT,
    ReportFormat,
    artifact_cells,
    bench_cells,
    benches_by_device,
    conclusion,
    emulated_cells,
    emulated_note,
    tier_note,
)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def markdown_table(header: tuple[str, ...], rows: Iterable[Iterable[str]], *, left: int = LEFT) -> str:
    """A table whose first `left` columns are flush left, the others right."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "".join([_line(header), _line(rule), *map(_line, rows)])


class MarkdownReport(ReportFormat):
    """For people who read it elsewhere."""

    name = "markdown"
    suffix = ".md"

    def render(self, report: Report, *, color: bool = False) -> str:
        parts = [f"# edgekit report\n\n{conclusion(report)}.\n\n## Artifacts\n\n"]
        parts.append(markdown_table(ARTIFACT_HEADER, map(artifact_cells, report.rows)))
        for device, items in benches_by_device(report).items():
            table = markdown_table(BENCH_HEADER, map(bench_cells, items))
            parts.append(f"\n## {device}\n\n{table}\n{tier_note(items[0].host)}\n")
            emulated = [cells for item in items if (cells := emulated_cells(item))]
            if emulated:
                parts.append(f"\n{markdown_table(EMULATED_HEADER, emulated)}\n{emulated_note(items)}\n")
        if report.failed:
            parts.append("\n## Failed\n\n" + "".join(f"- {verdict.sentence}\n" for verdict in report.failed))
        return "".join(parts)


REPORT = MarkdownReport()
