"""The tables of the HTML page, whose cells carry the value that the page sorts by."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekit.core.escape import html_id
from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.regressions import ALLOWED, INCOMPARABLE, NEW, REMOVED, WORSE, ChangeReport, MetricChange
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.runtime_versions import RuntimeVersion, RuntimeVersions
from edgekit.core.records.validation import Drift
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.budgets import format_rule
from edgekit.core.values.specs import Variant
from edgekit.core.values.tiers import TIER_NAMES, find_tier
from edgekit.reports._shared.cells import NOTHING, artifact_cells, change_cells, equality, operator_cells


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        numeric: Whether the column is aligned right and sorted by value.
        hint: What the figure is; the page shows it as the tooltip of the column's heading.
    """

    name: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class TableCell:
    """A cell of a table.

    Attributes:
        sort: The value that the cell is sorted by; None puts it after all others.
        mark: The CSS class: `good`, `bad`, `doubt`, `lost`, `lost-much`, `won`, `won-much` or empty.
        link: The id of the element that the cell links to.
    """

    text: str
    sort: float | None = None
    mark: str = ""
    link: str = ""

    def sort_key(self, column: Column) -> str | None:
        """Return the value of the attribute `data-sort`; None if the page can read the sort value from the text."""
        quantity = _parse_quantity(self.text) if column.numeric else None
        if self.sort is None:
            return None if quantity is None else ""
        if quantity is not None and math.isclose(quantity, self.sort, rel_tol=_ROUNDING):
            return None
        return f"{self.sort:.7g}"


# Quantities in text are read in ms, bytes and dB; page.js has the same table.
_UNITS = {
    "": 1.0, "%": 0.01, "ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    "TB": 1e12, "dB": 1.0,
}  # fmt: skip
_QUANTITY = re.compile(rf"([+-]?[\d,]+(?:\.\d+)?(?:e[+-]\d+)?) ?({'|'.join(_UNITS)})(?: \(.*)?", re.ASCII)
# Text has three significant digits, so it is off by at most 0.5 %; a smaller difference does not need `data-sort`.
_ROUNDING = 0.006


def _parse_quantity(text: str) -> float | None:
    """Return the quantity in the text, in ms, bytes or dB, as page.js reads it; None if there is none."""
    match = _QUANTITY.fullmatch(text)
    return None if match is None else float(match[1].replace(",", "")) * _UNITS[match[2]]


@dataclass(frozen=True)
class Line:
    """A row of a table; its first two cells name model and variant, by which the page filters."""

    cells: tuple[TableCell, ...]
    model: str
    target: str
    precision: str


@dataclass(frozen=True)
class Table:
    """A table; `key` is the suffix of its element ids."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...] = field(default=())


def subject_of(row: ReportRow) -> str:
    """Return the model and the kind of its source: `simple_cnn/keras`."""
    return f"{row.artifact.manifest.model}/{row.artifact.manifest.source['kind']}"


def evidence_key(row: ReportRow) -> str:
    """Return the id of the artifact's entry in the section Evidence."""
    manifest = row.artifact.manifest
    return html_id(f"of-{manifest.model}-{manifest.source['kind']}-{manifest.variant.slug}")


def line(row: ReportRow, *cells: TableCell, link: bool = False) -> Line:
    """Return a row about one artifact; `link` links its variant, which page.js does for all other tables."""
    manifest = row.artifact.manifest
    named = (TableCell(subject_of(row)), TableCell(str(manifest.variant), link=evidence_key(row) if link else ""))
    return Line((*named, *cells), subject_of(row), manifest.target, manifest.precision)


NAMES = (Column("model"), Column("variant"))
# Counts of the same file and version repeat to 0.1 %: a smaller difference of two versions is none.
_SAME_COUNT = 0.001


def verdict_of(row: ReportRow) -> str:
    """Return `passed`, `failed`, or `not judged` where no rule applied."""
    if not row.verdicts:
        return "not judged"
    return "passed" if row.passed else "failed"


def metric_text(drift: Drift, value: float) -> str:
    """Return a value of the task metric in its own unit, shares in percent."""
    return f"{100 * value:.2f} %" if TASK_METRICS[drift.metric].is_share else f"{value:.4g}"


def drop_text(drift: Drift, value: float) -> str:
    """Return a signed drop of the metric: in percentage points for shares, else in the metric's unit."""
    return f"{100 * value:+.2f}" if TASK_METRICS[drift.metric].is_share else f"{value:+.4f}"


def interval_text(drift: Drift) -> str:
    """Return the 95 % confidence interval of the drop."""
    if drift.interval is None:
        return NOTHING
    return f"{drop_text(drift, drift.interval.low)} .. {drop_text(drift, drift.interval.high)}"


def _verdict_cell(row: ReportRow) -> TableCell:
    """Return the verdict on all rules, with the number of rules that failed or passed."""
    word = verdict_of(row)
    if word == "not judged":
        return TableCell(word, 1, "doubt")
    failed = sum(not verdict.passed for verdict in row.verdicts)
    if failed:
        return TableCell(f"FAILED {failed} of {len(row.verdicts)}", 2, "bad")
    return TableCell(f"passed {len(row.verdicts)}", 0, "good")


def artifacts(report: Report) -> Table:
    """Return one row per artifact, with a column for each device on whose emulated core an artifact was validated."""
    devices = sorted({str(validation.device) for row in report.rows for validation in row.emulated})
    columns = (
        *NAMES,
        Column("size", True, "size of the model file"),
        Column("of float32", True, "size relative to the float32 file of the same target"),
        Column("max error", True, "largest absolute difference from the source's outputs on the golden samples"),
        Column("SQNR", True, "signal-to-quantization-noise ratio of the worst output on the golden samples"),
        Column("top-1", True, "share of test samples that source and artifact assign to the same class"),
        Column("metric", True, "task metric of the artifact on the test set"),
        Column("drop", True, "loss of the task metric against the source: percentage points, or the metric's unit"),
        Column("95 % interval", True, "confidence interval of the drop: paired bootstrap over the test set"),
        *(Column(f"on {name}", False, _EQUAL_HINT) for name in devices),
        Column("rules", False, "verdict on tolerances and budgets"),
    )
    floats = {
        (subject_of(row), row.artifact.manifest.target): row.artifact.manifest.size_bytes
        for row in report.rows
        if row.artifact.manifest.variant == Variant(row.artifact.manifest.target, "float32")
    }
    return Table(
        "artifacts",
        "Artifacts by model and variant",
        columns,
        tuple(_artifact(row, floats, devices) for row in report.rows),
    )


_EQUAL_HINT = "whether outputs on the device's emulated core equal those of source and host within the tolerances"


def _equal(row: ReportRow, device: str) -> TableCell:
    validation = next((validation for validation in row.emulated if validation.device == device), None)
    if validation is None:
        return TableCell(NOTHING, 2)
    return TableCell(equality(validation), 0 if validation.passed else 1, "good" if validation.passed else "bad")


def _artifact(row: ReportRow, floats: dict[tuple[str, str], int], devices: Sequence[str]) -> Line:
    manifest, validation = row.artifact.manifest, row.validation
    drift = validation.drift if validation else None
    float_size = floats.get((subject_of(row), manifest.target))
    share = None if not float_size else manifest.size_bytes / float_size
    _, _, size, error, sqnr, top1, metric, drop, _ = artifact_cells(row)
    # outputs without any error sort above every SQNR
    noise = float(sqnr.split()[0]) if sqnr.endswith("dB") else (9999.0 if sqnr == "exact" else None)
    return line(
        row,
        TableCell(size, manifest.size_bytes),
        TableCell(NOTHING if share is None else f"{100 * share:.0f} %", share),
        TableCell(error, validation.worst("max_abs_error") if validation else None),
        TableCell(sqnr, noise),
        TableCell(top1, drift.top1_agreement if drift else None),
        TableCell(metric, drift.artifact if drift else None),
        TableCell(drop, drift.drop if drift else None),
        TableCell(
            interval_text(drift) if drift else NOTHING, drift.interval.high if drift and drift.interval else None
        ),
        *(_equal(row, name) for name in devices),
        _verdict_cell(row),
        link=True,
    )


def tiers_of(bench: Measurement) -> list[str]:
    """Return the tiers of a bench, the most reliable one first."""
    return [tier for tier in reversed(TIER_NAMES) if tier in bench.latency_ms]


def spread(bench: Measurement, tier: str) -> str:
    """Return the spread of the tier's latency: percentiles, an interval, or why there is none."""
    if tier == "host":
        return f"p90 {format_ms(bench.wall.p90_ms)}, p99 {format_ms(bench.wall.p99_ms)}"
    if tier == "emulated" and bench.emulated is not None:
        low, high = bench.emulated.low_ms, bench.emulated.high_ms
        return bench.emulated.calibration if low is None or high is None else f"{format_ms(low)} .. {format_ms(high)}"
    execution, interval = bench.execution(tier), bench.interval_ms(tier)
    if execution is not None and execution.wall is not None:
        percentiles = f"p90 {format_ms(execution.wall.p90_ms)}, p99 {format_ms(execution.wall.p99_ms)}"
        return percentiles if interval is None else f"{' .. '.join(map(format_ms, interval))}, {percentiles}"
    return "rough" if find_tier(tier).is_bound else NOTHING


def threads_of(bench: Measurement, tier: str) -> int | None:
    """Return the threads that the tier's latency is for; None for the roofline: a bench does not record its profile."""
    if tier == "emulated" and bench.emulated is not None:
        return bench.emulated.threads
    execution = bench.execution(tier)
    if execution is not None:
        return execution.threads
    return bench.threads if tier == "host" else None


def side_by_side(report: Report) -> Table:
    """Return latency and peak memory with a column for each device; a row holds one figure in one tier."""
    names = sorted({bench.device for row in report.rows for bench in row.measurements})
    columns = (*NAMES, Column("figure"), Column("tier"), *(Column(name, True) for name in names))
    lines = []
    for row in report.rows:
        benches = {bench.device: bench for bench in row.measurements}
        for tier in (
            tier for tier in reversed(TIER_NAMES) if any(tier in bench.latency_ms for bench in benches.values())
        ):
            cells = [_latency(benches.get(name), tier) for name in names]
            lines.append(line(row, TableCell("latency"), TableCell(tier), *cells))
        for tier, peak in _PEAKS.items():
            if any(peak(bench) is not None for bench in benches.values()):
                cells = [_memory(peak(benches[name]) if name in benches else None) for name in names]
                lines.append(line(row, TableCell("peak memory"), TableCell(tier), *cells))
    caption = "Latency of one inference and peak memory by device, with the interval where there is one"
    return Table("side-by-side", caption, columns, tuple(lines))


def _latency(bench: Measurement | None, tier: str) -> TableCell:
    if bench is None or tier not in bench.latency_ms:
        return TableCell(NOTHING)
    value = bench.latency_ms[tier]
    return TableCell(format_ms(value) + (f" ({spread(bench, tier)})" if tier == "emulated" else ""), value)


_PEAKS: dict[str, Callable[[Measurement], int | None]] = {
    "emulated": lambda bench: bench.emulated_peak_memory_bytes,
    "host": lambda bench: bench.host_peak_memory_bytes,
}


def _memory(memory: int | None) -> TableCell:
    return TableCell(NOTHING) if memory is None else TableCell(format_bytes(memory), memory)


_STATISTICS = {
    "p50": "median",
    "p90": "90th percentile",
    "p99": "99th percentile",
    "MAD": "median absolute deviation",
}


def distributions(report: Report) -> Table:
    """Return the statistics of the wall times that each bench measured on its host."""
    names = ("min", "p50", "p90", "p99", "max", "mean", "MAD")
    columns = (
        *NAMES,
        Column("device"),
        *(Column(name, True, _STATISTICS.get(name, "")) for name in names),
        Column("CPU p50", True, "median CPU time, summed over all threads"),
        Column("runs", True, "measured inferences"),
        Column("load", True, "time to open the model file, with the runtime already imported"),
        Column("first", True, "wall time of the first inference"),
    )
    lines = [
        line(
            row,
            TableCell(bench.device),
            *(
                TableCell(format_ms(value), value)
                for value in (
                    bench.wall.min_ms, bench.wall.p50_ms, bench.wall.p90_ms, bench.wall.p99_ms, bench.wall.max_ms,
                    bench.wall.mean_ms, bench.wall.mad_ms, bench.cpu.p50_ms,
                )
            ),
            TableCell(f"{bench.wall.count:,}", bench.wall.count),
            TableCell(format_ms(bench.load_ms), bench.load_ms),
            TableCell(format_ms(bench.first_inference_ms), bench.first_inference_ms),
        )
        for row in report.rows
        for bench in row.measurements
    ]  # fmt: skip
    return Table("distributions", "Wall time of one inference, tier host", columns, tuple(lines))


def operators(report: Report) -> Table | None:
    """Return the cost of each operator; None if no bench was run with --per-op."""
    columns = (
        *NAMES,
        Column("device"),
        Column("tier"),
        Column("no.", True, "place in the order of computation"),
        Column("operator", False, "kind of operator; kinds that the runtime fuses are joined by +"),
        Column("output", False, "name of the operator's output"),
        Column("latency", True, "latency per inference"),
        Column("share", True, "share of the latency of all operators"),
        Column("instructions", True, "instructions per inference"),
        Column("cache misses", True, "lines of 64 bytes read from memory per inference"),
    )
    lines = [
        line(row, TableCell(bench.device), TableCell(tier), *_operator_cells(number, operator, total_ms))
        for row in report.rows
        for bench in row.measurements
        for tier, costs in bench.operators_by_tier.items()
        for total_ms in (sum(cost.latency_ms for cost in costs),)
        for number, operator in enumerate(costs, 1)
    ]
    return Table("operators", "Latency by operator", columns, tuple(lines)) if lines else None


def runtime_versions(report: Report) -> Table | None:
    """Return the counts under several versions of the runtime; None if no bench was run with --with."""
    columns = (
        *NAMES,
        Column("device"),
        Column("version", False, "package and version of the runtime"),
        Column("instructions", True, "instructions per inference on the emulated core"),
        Column("change", True, "against the first version that the bench named"),
        Column("cache misses", True, "lines of 64 bytes read from memory per inference"),
        Column("latency", True, "prediction of the emulated tier"),
    )
    lines = [
        line(row, TableCell(record.device), TableCell(version.requirement), *_version_cells(record, version))
        for row in report.rows
        for record in row.runtime_versions
        for version in record.versions
    ]
    return Table("runtime-versions", "One file under several versions", columns, tuple(lines)) if lines else None


def _version_cells(record: RuntimeVersions, version: RuntimeVersion) -> list[TableCell]:
    growth, counts = record.growth(version), version.emulated.counts
    mark = "" if version is record.versions[0] or abs(growth) < _SAME_COUNT else "lost" if growth > 0 else "won"
    return [
        TableCell(f"{version.instructions:,.0f}", version.instructions),
        TableCell(NOTHING) if version is record.versions[0] else TableCell(f"{100 * growth:+.2f} %", growth, mark),
        TableCell(f"{counts.memory_misses:,.0f}", counts.memory_misses),
        TableCell(format_ms(version.emulated.latency_ms), version.emulated.latency_ms),
    ]


def _operator_cells(number: int, operator: OperatorCost, total_ms: float) -> list[TableCell]:
    texts = operator_cells(str(number), operator, total_ms)
    share = operator.latency_ms / total_ms if total_ms else None
    sorts = (float(number), None, None, operator.latency_ms, share, operator.instructions, operator.memory_misses)
    return [TableCell(text, sort) for text, sort in zip(texts, sorts, strict=True)]


def classes(report: Report) -> tuple[Table, ...]:
    """Return the drift by class, one table per model, with the variants in which the accuracy of a class changes."""
    tables = []
    drops_by_subject: dict[str, list[tuple[ReportRow, dict[int, float]]]] = {}
    for row in report.rows:
        if drops := _class_drops(row):
            drops_by_subject.setdefault(subject_of(row), []).append((row, drops))
    for subject, rows in drops_by_subject.items():
        labels = sorted({label for _, drops in rows for label in drops})
        changed = [(row, drops) for row, drops in rows if any(drops.values())]
        if changed:
            names = report.class_names.get(changed[0][0].artifact.manifest.model, ())
            columns = (*NAMES, *(Column(_class_name(label, names), True) for label in labels))
            lines = tuple(line(row, *(_class_cell(drops.get(label)) for label in labels)) for row, drops in changed)
            unchanged = len(rows) - len(changed)
            others = f"; no class changes in the other {unchanged} variants" if unchanged else ""
            caption = f"{subject}: accuracy lost by class, in percentage points{others}"
            tables.append(Table(f"classes-{html_id(subject.replace('/', '-'))}", caption, columns, lines))
    return tuple(tables)


def _class_drops(row: ReportRow) -> dict[int, float]:
    drift = row.validation.drift if row.validation else None
    return {drifted.label: round(drifted.drop, 9) for drifted in drift.classes} if drift else {}


def _class_name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _class_cell(drop: float | None) -> TableCell:
    if drop is None:
        return TableCell(NOTHING)
    # two percentage points and more are shaded more strongly
    mark = "" if drop == 0 else ("lost" if drop > 0 else "won") + ("-much" if abs(drop) >= 0.02 else "")
    return TableCell("0" if drop == 0 else f"{100 * drop:+.1f}", drop, mark)


_MARKS = {WORSE: "bad", REMOVED: "bad", ALLOWED: "doubt", NEW: "doubt", INCOMPARABLE: "doubt"}


def changes(report: ChangeReport) -> Table:
    """Return the differences between two reports, the worst first."""
    columns = (
        *NAMES,
        Column("device"),
        Column("figure"),
        Column("before", True),
        Column("now", True),
        Column("change", True),
        Column("verdict"),
        Column("note"),
    )
    return Table(
        "changes", f"Changes from {report.old} to {report.new}", columns, tuple(map(_change_line, report.reported))
    )


def _change_line(change: MetricChange) -> Line:
    texts = change_cells(change)
    sorts = (None, None, None, None, change.before, change.after, change.relative, None, None)
    mark = _MARKS.get(change.state, "good")
    cells = tuple(
        TableCell(text, sort, mark if index == 7 else "")
        for index, (text, sort) in enumerate(zip(texts, sorts, strict=True))
    )
    target, _, name = change.variant.partition(":")
    precision, _, _tag = name.partition("-")
    return Line(cells, f"{change.model}/{change.kind}", target, precision)


def rule_text(rule: str, value: float | None) -> str:
    """Return a figure or limit of a verdict in the unit of its rule."""
    return NOTHING if value is None else format_rule(rule, value)
