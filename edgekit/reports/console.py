"""Tables that fit a terminal of 100 columns."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edgekit.contracts.report import ReportFormat
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.regressions import INCOMPARABLE, ChangeReport, MetricChange
from edgekit.core.records.report import Report
from edgekit.core.records.tuning import LayerSensitivity
from edgekit.reports._shared.cells import (
    ARTIFACT_HEADER,
    BENCH_HEADER,
    EMULATED_HEADER,
    LEFT,
    OPERATORS_HEADER,
    OPERATORS_LEFT,
    VALIDATED_HEADER,
    VALIDATED_LEFT,
    artifact_cells,
    bench_cells,
    benches_by_device,
    change_cells,
    conclusion,
    emulated_cells,
    emulated_note,
    operator_rows,
    tier_note,
    validated_cells,
)

WIDTH = 100
BLAMED, NOTHING_DB = 10, 0.05
"""So many layers are listed, as far as they gain that much."""


def table(header: Iterable[str], rows: Iterable[Iterable[str]], *, left: int, color: bool = False) -> str:
    """A table as text, its first `left` columns flush left, the others right; failures in red."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        drawn.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(
            *(Text(cell, style="bold red" if cell in ("FAIL", "FAILED", "NOT EQUAL") else "") for cell in row)
        )
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, force_terminal=color, no_color=not color, highlight=False).print(drawn)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def bench_tables(benches: Mapping[str, Sequence[Measurement]], color: bool) -> str:
    """One table a device."""
    parts = []
    for device, items in benches.items():
        parts.append(f"\n{device}\n{table(BENCH_HEADER, map(bench_cells, items), left=LEFT, color=color)}")
        emulated = [cells for item in items if (cells := emulated_cells(item))]
        if emulated:
            parts.append(f"{table(EMULATED_HEADER, emulated, left=LEFT, color=color)}{emulated_note(items)}\n")
        for item in items:
            parts += [_operators(item, tier, found, color) for tier, found in item.operators_by_tier.items()]
    hosts = dict.fromkeys(item.host for items in benches.values() for item in items)
    return "".join([*parts, *(f"{tier_note(host)}\n" for host in hosts)])


def _operators(item: Measurement, tier: str, found: Sequence[OperatorCost], color: bool) -> str:
    """What each operator of one artifact costs in one tier."""
    title = f"operators of {item.model}/{item.kind} {item.variant} ({tier})"
    return f"\n{title}\n{table(OPERATORS_HEADER, operator_rows(found), left=OPERATORS_LEFT, color=color)}"


_CHANGES = ("model", "variant", "figure", "before", "now", "change", "verdict")


def _change(item: MetricChange) -> tuple[str, ...]:
    """One change with its device beside its figure: a terminal has no room for a column of devices."""
    model, variant, device, figure, *rest, _note = change_cells(item)
    return model, variant, f"{figure}, {device}" if item.device else figure, *rest


def changes_table(changes: ChangeReport, color: bool) -> str:
    """What changed, the worst first; what could not be compared is counted below, with the reason."""
    compared = [item for item in changes.reported if item.state != INCOMPARABLE]
    text = table(_CHANGES, map(_change, compared), left=3, color=color) if compared else ""
    reasons = Counter(item.note for item in changes.reported if item.state == INCOMPARABLE)
    notes = (f"{count} not comparable: {reason}\n" for reason, count in reasons.items())
    return "".join([text, *notes, f"{changes.sentence}\n"])


class ConsoleReport(ReportFormat):
    """What `edgekit report` prints."""

    name = "console"
    suffix = ".txt"

    def render(self, report: Report, *, color: bool = False) -> str:
        parts = [table(ARTIFACT_HEADER, map(artifact_cells, report.rows), left=LEFT, color=color)]
        validated = [validated_cells(item) for row in report.rows for item in row.emulated]
        if validated:
            parts.append(f"\non emulated cores\n{table(VALIDATED_HEADER, validated, left=VALIDATED_LEFT, color=color)}")
        parts.append(bench_tables(benches_by_device(report), color))
        if report.changes is not None:
            parts.append(f"\nagainst {report.changes.old}\n{changes_table(report.changes, color)}\n")
        parts += [f"FAILED {verdict.sentence}\n" for verdict in report.failed]
        return "".join([*parts, conclusion(report), "\n"])

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        return f"{changes.old} against {changes.new}\n{changes_table(changes, color)}"


REPORT = ConsoleReport()


def sensitivity_table(sensitivities: Sequence[LayerSensitivity], factor: float, color: bool) -> str:
    """What it gains to keep single layers in float; `factor` turns the metric's gain into its unit."""
    alone = any(item.alone_db is not None for item in sensitivities)
    rows = [
        (
            item.unit.title,
            str(len(item.unit.names)),
            f"{item.gain_db:+.1f} dB",
            "-" if item.metric_gain is None else f"{factor * item.metric_gain:+.4g}",
            f"{100 * item.share:.1f}%",
            *(() if not alone else ("-" if item.alone_db is None else f"{item.alone_db:.1f} dB",)),
        )
        for item in sensitivities[:BLAMED]
        if item.gain_db >= NOTHING_DB or item.alone_db is not None
    ]
    header = ("to blame: kept in float", "layers", "gains", "wins back", "of weights", *(("alone",) if alone else ()))
    left_out = len(sensitivities) - len(rows)
    return table(header, rows, left=1, color=color) + (f"and {left_out} others gain less\n" if left_out else "")
