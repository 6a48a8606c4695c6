"""Plain-text tables for a terminal of 100 columns."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edgekit.contracts.report import ReportFormat
from edgekit.core.escape import line, visible
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.regressions import INCOMPARABLE, ChangeReport, MetricChange
from edgekit.core.records.report import Report
from edgekit.core.records.runtime_versions import RuntimeVersions
from edgekit.core.records.tuning import LayerSensitivity
from edgekit.reports._shared.cells import (
    ARTIFACT_HEADER,
    BENCH_HEADER,
    BROWSER_HEADER,
    DEVICE_HEADER,
    EMULATED_HEADER,
    LEFT,
    NOTHING,
    OPERATORS_HEADER,
    OPERATORS_LEFT,
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
    operator_change_rows,
    operator_rows,
    runtime_version_rows,
    synthetic_note,
    tier_note,
    validated_cells,
    validated_title,
)

WIDTH = 100
# The sensitivity table lists at most ten layer groups, and none whose gain rounds to 0.0 dB.
MAX_SENSITIVITIES, MIN_GAIN_DB = 10, 0.05


def table(header: Iterable[str], rows: Iterable[Iterable[str]], *, left: int, color: bool = False) -> str:
    """Return a table as text, at most WIDTH columns wide.

    Args:
        header: The names of the columns.
        rows: The cells of each row, one per column.
        left: The number of leading columns that are aligned left; the others are aligned right.
        color: Whether to emit terminal colors; failures are then red.

    Returns:
        Lines without trailing blanks, each ended by a line feed.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rendered = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        # A Text, since a name in a str would be read as markup.
        rendered.add_column(Text(visible(name)), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        rendered.add_row(
            *(Text(visible(cell), style="bold red" if cell in ("FAIL", "FAILED", "NOT EQUAL") else "") for cell in row)
        )
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, force_terminal=color, no_color=not color, highlight=False).print(rendered)
    lines = [text.rstrip() for text in stream.getvalue().split("\n")]
    return "\n".join(text for text in lines if text) + "\n"


def bench_tables(benches: Mapping[str, Sequence[Measurement]], color: bool) -> str:
    """Return the tables of each device (host and analytic tier, emulated tier, operators), then notes on the tiers.

    Args:
        benches: The benches of each device.
        color: As for `table`.
    """
    parts = []
    for device, device_benches in benches.items():
        parts.append(f"\n{line(device)}{table(BENCH_HEADER, map(bench_cells, device_benches), left=LEFT, color=color)}")
        emulated = [cells for bench in device_benches if (cells := emulated_cells(bench))]
        if emulated:
            emulated_table = table(EMULATED_HEADER, emulated, left=LEFT, color=color)
            parts += [emulated_table, *map(line, emulated_note(device_benches).split("\n"))]
        measured = [cells for bench in device_benches if (cells := device_cells(bench))]
        if measured:
            parts.append(table(DEVICE_HEADER, measured, left=LEFT, color=color))
            in_browser = [cells for bench in device_benches if (cells := browser_cells(bench))]
            parts += [table(BROWSER_HEADER, in_browser, left=LEFT, color=color)] if in_browser else []
            parts += map(line, device_note(device_benches).split("\n"))
        for bench in device_benches:
            by_tier = bench.operators_by_tier.items()
            parts += [_operators_table(bench, tier, operators, color) for tier, operators in by_tier]
    hosts = dict.fromkeys(bench.host for device_benches in benches.values() for bench in device_benches)
    return "".join([*parts, *map(line, (text for host in hosts for text in tier_note(host).split("\n")))])


def runtime_versions_tables(records: Sequence[tuple[Artifact, RuntimeVersions]], color: bool) -> str:
    """Return the counts of artifacts under several versions of their runtime, a table a device.

    Args:
        records: Pairs of an artifact and its counts.
        color: As for `table`.
    """
    parts = []
    for device in dict.fromkeys(record.device for _, record in records):
        of_device = [(artifact, record) for artifact, record in records if record.device == device]
        rows = [cells for artifact, record in of_device for cells in runtime_version_rows(artifact, record)]
        parts += [line(device), table(RUNTIME_VERSIONS_HEADER, rows, left=RUNTIME_VERSIONS_LEFT, color=color)]
        for artifact, record in of_device:
            for index, version in enumerate(record.versions[1:], 1):
                changed = operator_change_rows(record, index)
                if changed:
                    header = ("operator", record.versions[0].requirement, version.requirement, "instructions")
                    parts += ["\n", line(f"operators of {artifact.label} that change most")]
                    parts.append(table(header, changed, left=1, color=color))
    return "".join(parts)


def _operators_table(bench: Measurement, tier: str, operators: Sequence[OperatorCost], color: bool) -> str:
    """Return the cost of each operator of one artifact in one tier."""
    title = f"operators of {bench.model}/{bench.kind} {bench.variant} ({tier})"
    return f"\n{line(title)}{table(OPERATORS_HEADER, operator_rows(operators), left=OPERATORS_LEFT, color=color)}"


_CHANGES_HEADER = ("model", "variant", "figure", "before", "now", "change", "verdict")


def _change_cells(change: MetricChange) -> tuple[str, ...]:
    """Return the cells of a change with the device in the figure's column: 100 columns have no space for one more."""
    model, variant, device, figure, *rest, _note = change_cells(change)
    return model, variant, f"{figure}, {device}" if change.device else figure, *rest


def changes_table(changes: ChangeReport, color: bool) -> str:
    """Return the changes, the worst first, then the number of figures that cannot be compared for each reason."""
    compared = [change for change in changes.reported if change.state != INCOMPARABLE]
    text = table(_CHANGES_HEADER, map(_change_cells, compared), left=3, color=color) if compared else ""
    reasons = Counter(change.note for change in changes.reported if change.state == INCOMPARABLE)
    notes = (line(f"{count} not comparable: {reason}") for reason, count in reasons.items())
    return "".join([text, *notes, line(changes.sentence)])


class ConsoleReport(ReportFormat):
    """The format that `edgekit report` prints by default."""

    name = "console"
    suffix = ".txt"

    def render(self, report: Report, *, color: bool = False) -> str:
        parts = [table(ARTIFACT_HEADER, map(artifact_cells, report.rows), left=LEFT, color=color)]
        parts += map(line, synthetic_note(report).splitlines())
        validated = [validated_cells(validation) for row in report.rows for validation in row.emulated]
        if validated:
            validations = table(VALIDATED_HEADER, validated, left=VALIDATED_LEFT, color=color)
            title = validated_title(item for row in report.rows for item in row.emulated)
            parts.append(f"\n{title}\n{validations}")
        parts.append(bench_tables(benches_by_device(report), color))
        versions = [(row.artifact, record) for row in report.rows for record in row.runtime_versions]
        if versions:
            parts += ["\n", runtime_versions_tables(versions, color)]
        if report.changes is not None:
            parts.append(f"\n{line(f'changes against {report.changes.old}')}{changes_table(report.changes, color)}\n")
        parts += [line(f"FAILED {verdict.sentence}") for verdict in report.failed]
        return "".join([*parts, conclusion(report), "\n"])

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        return line(f"{changes.old} against {changes.new}") + changes_table(changes, color)


REPORT = ConsoleReport()


def sensitivity_table(sensitivities: Sequence[LayerSensitivity], factor: float, color: bool) -> str:
    """Return how much accuracy is gained by keeping single groups of layers in float.

    Args:
        sensitivities: The groups of layers, the most sensitive first.
        factor: Multiplied with the gain of the task metric, so that it is printed in the metric's unit.
        color: As for `table`.
    """
    has_alone = any(sensitivity.alone_db is not None for sensitivity in sensitivities)
    rows = [
        (
            sensitivity.group.title,
            str(len(sensitivity.group.names)),
            f"{sensitivity.gain_db:+.1f} dB",
            NOTHING if sensitivity.metric_gain is None else f"{factor * sensitivity.metric_gain:+.4g}",
            f"{100 * sensitivity.share:.1f}%",
            *(
                ()
                if not has_alone
                else (NOTHING if sensitivity.alone_db is None else f"{sensitivity.alone_db:.1f} dB",)
            ),
        )
        for sensitivity in sensitivities[:MAX_SENSITIVITIES]
        if sensitivity.gain_db >= MIN_GAIN_DB or sensitivity.alone_db is not None
    ]
    alone = ("quantized alone",) if has_alone else ()
    header = ("layers kept in float", "count", "SQNR gain", "metric gain", "of weights", *alone)
    omitted = len(sensitivities) - len(rows)
    return table(header, rows, left=1, color=color) + (f"and {omitted} others with smaller gains\n" if omitted else "")
