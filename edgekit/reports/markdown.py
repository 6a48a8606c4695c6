"""Markdown tables, for a pull request or a README."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.core.report import Report
from edgekit.reports._base import (
    ARTIFACT_HEADER,
    BENCH_HEADER,
    ReportFormat,
    artifact_cells,
    bench_cells,
    conclusion,
)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _table(header: tuple[str, ...], rows: Iterable[Iterable[str]], left: int) -> str:
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "".join([_line(header), _line(rule), *map(_line, rows)])


class MarkdownReport(ReportFormat):
    """For people who read it elsewhere."""

    name = "markdown"
    suffix = ".md"

    def render(self, report: Report, *, color: bool = False) -> str:
        parts = [f"# edgekit report\n\n{conclusion(report)}.\n\n## Artifacts\n\n"]
        parts.append(_table(ARTIFACT_HEADER, map(artifact_cells, report.rows), 3))
        benches = [bench_cells(item) for row in report.rows for item in row.measurements]
        if benches:
            parts.append("\n## Latency and memory\n\n")
            parts.append(f"`host` was measured on {report.host}; `analytic` is a lower bound from the profile's roofline.\n\n")
            parts.append(_table(BENCH_HEADER, benches, 4))
        if report.failed:
            parts.append("\n## Failed\n\n" + "".join(f"- {verdict.sentence}\n" for verdict in report.failed))
        return "".join(parts)


REPORT = MarkdownReport()
