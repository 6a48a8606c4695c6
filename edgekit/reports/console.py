"""Tables that fit a terminal of 100 columns."""

from __future__ import annotations

import io
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

WIDTH = 100


def table(header: Iterable[str], rows: Iterable[Iterable[str]], *, left: int, color: bool = False, title: str = "") -> str:
    """A table as text, its first `left` columns flush left, the others right; words that say failure in red."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        drawn.add_column(name, justify="left" if index < left else "right", overflow="fold", no_wrap=False)
    for row in rows:
        drawn.add_row(*(Text(cell, style="bold red" if cell == "FAILED" else "") for cell in row))
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, force_terminal=color, no_color=not color, highlight=False).print(drawn)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


class ConsoleReport(ReportFormat):
    """What `edgekit report` prints."""

    name = "console"
    suffix = ".txt"

    def render(self, report: Report, *, color: bool = False) -> str:
        parts = [table(ARTIFACT_HEADER, map(artifact_cells, report.rows), left=3, color=color)]
        benches = [bench_cells(item) for row in report.rows for item in row.measurements]
        if benches:
            parts.append(table(BENCH_HEADER, benches, left=4, color=color))
            parts.append("host: measured here; analytic: a lower bound from the profile's roofline, not a prediction\n")
            parts.append(f"host is {report.host}\n")
        parts += [f"FAILED {verdict.sentence}\n" for verdict in report.failed]
        return "".join([*parts, conclusion(report), "\n"])


REPORT = ConsoleReport()
