"""Tables as the HTML page shows them: cells that know by what they sort, lines that know what they are about."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.regressions import ALLOWED, INCOMPARABLE, NEW, REMOVED, WORSE, ChangeReport, MetricChange
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.validation import Drift
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.budgets import TIERS, format_rule
from edgekit.core.values.specs import Variant
from edgekit.reports._shared.cells import NOTHING, artifact_cells, change_cells, equality, operator_cells

TIER_WORDS = {
    "device": "measured on the device itself.",
    "emulated": "predicted from the instructions and cache misses counted on the device's core under QEMU, by a cost"
    " model fitted to published timings; the interval is that model's error. Uncalibrated where nobody published any.",
    "host": "measured on the machine that ran the bench, with the profile's threads and memory limit: no figure of the"
    " device.",
    "analytic": "the device's roofline, multiply-accumulates over the peak rate or bytes over the bandwidth: a rough"
    " bound, no prediction.",
}
"""By how much a figure of the tier is worth."""


@dataclass(frozen=True)
class Column:
    """`numeric` ones are flush right and sort by value; `hint` says what the figure is."""

    name: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """`sort` is the value that it sorts by (None: after all others); `mark` is good, bad, doubt or empty."""

    text: str
    sort: float | None = None
    mark: str = ""
    link: str = ""

    def sort_key(self, column: Column) -> str | None:
        """What the page has to be told to sort it by; None where its text says it, units brought to ms and bytes."""
        read = _read(self.text) if column.numeric else None
        if self.sort is None:
            return None if read is None else ""
        if read is not None and math.isclose(read, self.sort, rel_tol=_SEEN):
            return None
        return f"{self.sort:.7g}"


_UNITS = {
    "": 1.0, "%": 0.01, "ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    "TB": 1e12, "dB": 1.0,
}  # fmt: skip
"""As in page.js."""
_QUANTITY = re.compile(rf"([+-]?[\d,]+(?:\.\d+)?(?:e[+-]\d+)?) ?({'|'.join(_UNITS)})(?: \(.*)?", re.ASCII)
_SEEN = 0.006
"""Three digits are seen: what differs by less sorts as what it looks like."""


def _read(text: str) -> float | None:
    """The quantity that a text says, as the page reads it."""
    found = _QUANTITY.fullmatch(text)
    return None if found is None else float(found[1].replace(",", "")) * _UNITS[found[2]]


@dataclass(frozen=True)
class Line:
    """One row: its first two cells name model and variant."""

    cells: tuple[Cell, ...]
    model: str
    target: str
    precision: str


@dataclass(frozen=True)
class Table:
    """`key` makes its id."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...] = field(default=())


def subject_of(row: ReportRow) -> str:
    """`simple_cnn/keras`"""
    return f"{row.artifact.manifest.model}/{row.artifact.manifest.source['kind']}"


def evidence_key(row: ReportRow) -> str:
    """The id of the artifact's part of the evidence."""
    manifest = row.artifact.manifest
    return f"of-{manifest.model}-{manifest.source['kind']}-{manifest.variant.slug}"


def line(row: ReportRow, *cells: Cell, link: bool = False) -> Line:
    """A row about one artifact, which begins with its name; the page itself links all but the first table's."""
    manifest = row.artifact.manifest
    named = (Cell(subject_of(row)), Cell(str(manifest.variant), link=evidence_key(row) if link else ""))
    return Line((*named, *cells), subject_of(row), manifest.target, manifest.precision)


NAMES = (Column("model"), Column("variant"))


def verdict_of(row: ReportRow) -> str:
    """`passed`, `failed`, or `not judged`."""
    if not row.verdicts:
        return "not judged"
    return "passed" if row.passed else "failed"


def metric_text(drift: Drift, value: float) -> str:
    """The task metric in its own unit."""
    return f"{100 * value:.2f} %" if TASK_METRICS[drift.metric].is_share else f"{value:.4g}"


def drop_text(drift: Drift, value: float) -> str:
    """A drop in points where the metric is a share, else in its own unit; always signed."""
    return f"{100 * value:+.2f}" if TASK_METRICS[drift.metric].is_share else f"{value:+.4f}"


def interval_text(drift: Drift) -> str:
    """The drop's 95 % interval."""
    if drift.interval is None:
        return NOTHING
    return f"{drop_text(drift, drift.interval.low)} .. {drop_text(drift, drift.interval.high)}"


def judged(row: ReportRow) -> Cell:
    """The verdict on all rules, and how many broke."""
    word = verdict_of(row)
    if word == "not judged":
        return Cell(word, 1, "doubt")
    failed = sum(not verdict.passed for verdict in row.verdicts)
    if failed:
        return Cell(f"FAILED {failed} of {len(row.verdicts)}", 2, "bad")
    return Cell(f"passed {len(row.verdicts)}", 0, "good")


def artifacts(report: Report) -> Table:
    """Model by variant, with a column for each device on whose emulated core something was validated."""
    devices = sorted({str(item.device) for row in report.rows for item in row.emulated})
    columns = (
        *NAMES,
        Column("size", True, "of the model file"),
        Column("of float32", True, "size against the same target's float32 file"),
        Column("max error", True, "largest difference from the source's outputs on the golden samples"),
        Column("SQNR", True, "signal to quantization noise of the worst output"),
        Column("top-1", True, "share of the test set that source and artifact put into the same class"),
        Column("metric", True, "task metric on the test set"),
        Column("drop", True, "how much worse than the source's: points for shares, else the metric's unit"),
        Column("95 % between", True, "paired bootstrap over the test set"),
        *(Column(f"on {name}", False, _EQUAL_HINT) for name in devices),
        Column("rules", False, "tolerances and budgets"),
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


_EQUAL_HINT = "whether the device's emulated core computes what the source and this host compute, within the tolerances"


def _equal(row: ReportRow, device: str) -> Cell:
    found = next((item for item in row.emulated if item.device == device), None)
    if found is None:
        return Cell(NOTHING, 2)
    return Cell(equality(found), 0 if found.passed else 1, "good" if found.passed else "bad")


def _artifact(row: ReportRow, floats: dict[tuple[str, str], int], devices: Sequence[str]) -> Line:
    manifest, validation = row.artifact.manifest, row.validation
    drift = validation.drift if validation else None
    whole = floats.get((subject_of(row), manifest.target))
    share = None if not whole else manifest.size_bytes / whole
    _, _, size, error, sqnr, top1, metric, drop, _ = artifact_cells(row)
    noise = float(sqnr.split()[0]) if sqnr.endswith("dB") else (9999.0 if sqnr == "exact" else None)
    return line(
        row,
        Cell(size, manifest.size_bytes),
        Cell(NOTHING if share is None else f"{100 * share:.0f} %", share),
        Cell(error, validation.worst("max_abs_error") if validation else None),
        Cell(sqnr, noise),
        Cell(top1, drift.top1_agreement if drift else None),
        Cell(metric, drift.artifact if drift else None),
        Cell(drop, drift.drop if drift else None),
        Cell(interval_text(drift) if drift else NOTHING, drift.interval.high if drift and drift.interval else None),
        *(_equal(row, name) for name in devices),
        judged(row),
        link=True,
    )


def tiers_of(item: Measurement) -> list[str]:
    """Its tiers, the most trustworthy first."""
    return [tier for tier in reversed(TIERS) if tier in item.latency_ms]


def spread(item: Measurement, tier: str) -> str:
    """What is known of how far the tier's figure can be off."""
    if tier == "host":
        return f"p90 {format_ms(item.wall.p90_ms)}, p99 {format_ms(item.wall.p99_ms)}"
    if tier == "emulated" and item.emulated is not None:
        low, high = item.emulated.low_ms, item.emulated.high_ms
        return item.emulated.calibration if low is None or high is None else f"{format_ms(low)} .. {format_ms(high)}"
    return "rough" if tier == "analytic" else NOTHING


def threads_of(item: Measurement, tier: str) -> int | None:
    """The threads that the tier's figure is for; None for the roofline, whose profile a bench does not keep."""
    if tier == "emulated" and item.emulated is not None:
        return item.emulated.threads
    return item.threads if tier == "host" else None


def side_by_side(report: Report) -> Table:
    """Latency and memory with a column for each device; a row holds one figure in one tier."""
    names = sorted({item.device for row in report.rows for item in row.measurements})
    columns = (*NAMES, Column("figure"), Column("tier"), *(Column(name, True) for name in names))
    lines = []
    for row in report.rows:
        benches = {item.device: item for item in row.measurements}
        for tier in (tier for tier in reversed(TIERS) if any(tier in item.latency_ms for item in benches.values())):
            cells = [_latency(benches.get(name), tier) for name in names]
            lines.append(line(row, Cell("latency"), Cell(tier), *cells))
        for tier, peak in _PEAKS.items():
            if any(peak(item) is not None for item in benches.values()):
                cells = [_memory(peak(benches[name]) if name in benches else None) for name in names]
                lines.append(line(row, Cell("peak memory"), Cell(tier), *cells))
    caption = "Latency of one inference and peak memory by device; intervals where there are any"
    return Table("side-by-side", caption, columns, tuple(lines))


def _latency(item: Measurement | None, tier: str) -> Cell:
    if item is None or tier not in item.latency_ms:
        return Cell(NOTHING)
    value = item.latency_ms[tier]
    return Cell(format_ms(value) + (f" ({spread(item, tier)})" if tier == "emulated" else ""), value)


_PEAKS: dict[str, Callable[[Measurement], int | None]] = {
    "emulated": lambda item: item.emulated_peak_memory_bytes,
    "host": lambda item: item.host_peak_memory_bytes,
}


def _memory(memory: int | None) -> Cell:
    return Cell(NOTHING) if memory is None else Cell(format_bytes(memory), memory)


def distributions(report: Report) -> Table:
    """What each bench measured on its host, run by run."""
    names = ("min", "p50", "p90", "p99", "max", "mean", "MAD")
    columns = (
        *NAMES,
        Column("device"),
        *(Column(name, True) for name in names),
        Column("CPU p50", True, "of all threads together"),
        Column("runs", True),
        Column("load", True, "opening the file, library already imported"),
        Column("first", True, "the first inference"),
    )
    lines = [
        line(
            row,
            Cell(item.device),
            *(
                Cell(format_ms(value), value)
                for value in (
                    item.wall.min_ms, item.wall.p50_ms, item.wall.p90_ms, item.wall.p99_ms, item.wall.max_ms,
                    item.wall.mean_ms, item.wall.mad_ms, item.cpu.p50_ms,
                )
            ),
            Cell(f"{item.wall.count:,}", item.wall.count),
            Cell(format_ms(item.load_ms), item.load_ms),
            Cell(format_ms(item.first_inference_ms), item.first_inference_ms),
        )
        for row in report.rows
        for item in row.measurements
    ]  # fmt: skip
    return Table("distributions", "Wall time of one inference, host tier", columns, tuple(lines))


def operators(report: Report) -> Table | None:
    """What each operator costs, where a bench was asked for it."""
    columns = (
        *NAMES,
        Column("device"),
        Column("tier"),
        Column("no.", True, "in the order of computation"),
        Column("operator", False, "joined by + where the runtime makes one of several"),
        Column("output"),
        Column("latency", True, "of one inference"),
        Column("share", True, "of all operators"),
        Column("instructions", True, "of one inference"),
        Column("lines", True, "of 64 bytes that come from memory"),
    )
    lines = [
        line(row, Cell(item.device), Cell(tier), *_operator(number, operator, found))
        for row in report.rows
        for item in row.measurements
        for tier, found in item.operators_by_tier.items()
        for number, operator in enumerate(found, 1)
    ]
    return Table("operators", "Latency by operator", columns, tuple(lines)) if lines else None


def _operator(number: int, item: OperatorCost, found: Sequence[OperatorCost]) -> list[Cell]:
    total = sum(operator.latency_ms for operator in found)
    texts = operator_cells(str(number), item, total)
    share = item.latency_ms / total if total else None
    sorts = (float(number), None, None, item.latency_ms, share, item.instructions, item.memory_misses)
    return [Cell(text, sort) for text, sort in zip(texts, sorts, strict=True)]


def classes(report: Report) -> tuple[Table, ...]:
    """Drift by class for each model: only variants in which some class drifts."""
    tables = []
    for subject in dict.fromkeys(map(subject_of, report.rows)):
        rows = [row for row in report.rows if subject_of(row) == subject and _class_drops(row)]
        labels = sorted({label for row in rows for label in _class_drops(row)})
        moved = [row for row in rows if any(_class_drops(row).values())]
        if moved:
            names = report.class_names.get(moved[0].artifact.manifest.model, ())
            columns = (*NAMES, *(Column(_class_name(label, names), True) for label in labels))
            lines = tuple(line(row, *(_class_cell(row, label) for label in labels)) for row in moved)
            still = (
                f"; no class changes in the other {len(rows) - len(moved)} variants" if len(rows) > len(moved) else ""
            )
            caption = f"{subject}: accuracy lost by class, in points{still}"
            tables.append(Table(f"classes-{subject.replace('/', '-')}", caption, columns, lines))
    return tuple(tables)


def _class_drops(row: ReportRow) -> dict[int, float]:
    drift = row.validation.drift if row.validation else None
    return {item.label: round(item.drop, 9) for item in drift.classes} if drift else {}


def _class_name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _class_cell(row: ReportRow, label: int) -> Cell:
    drop = _class_drops(row).get(label)
    if drop is None:
        return Cell(NOTHING)
    mark = "" if drop == 0 else ("lost" if drop > 0 else "won") + ("-much" if abs(drop) >= 0.02 else "")
    return Cell("0" if drop == 0 else f"{100 * drop:+.1f}", drop, mark)


_MARKS = {WORSE: "bad", REMOVED: "bad", ALLOWED: "doubt", NEW: "doubt", INCOMPARABLE: "doubt"}


def changes(found: ChangeReport) -> Table:
    """What two runs differ in."""
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
    return Table("changes", f"{found.old} against {found.new}", columns, tuple(map(_change, found.reported)))


def _change(item: MetricChange) -> Line:
    texts = change_cells(item)
    sorts: tuple[float | None, ...] = (None, None, None, None, item.before, item.after, item.relative, None, None)
    mark = _MARKS.get(item.state, "good")
    cells = tuple(
        Cell(text, sort, mark if index == 7 else "")
        for index, (text, sort) in enumerate(zip(texts, sorts, strict=True))
    )
    target, _, name = item.variant.partition(":")
    precision, _, _tag = name.partition("-")
    return Line(cells, f"{item.model}/{item.kind}", target, precision)


def rule_text(rule: str, value: float | None) -> str:
    """A verdict's figure or limit in the unit of its rule."""
    return NOTHING if value is None else format_rule(rule, value)
