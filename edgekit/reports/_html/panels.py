"""The charts of the HTML page: for each model trade-offs, latency by device and latency distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.numerics.pareto import pareto_front
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.validation import Drift
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.precisions import precision_names
from edgekit.core.values.tiers import TIER_NAMES, TIERS
from edgekit.reports._html import charts
from edgekit.reports._html.charts import Axis, ChartPoint, Span
from edgekit.reports._html.tables import NAMES, Column, Line, Table, TableCell, line, metric_text, subject_of, tiers_of

_HOST = "host"  # the device name of a bench without a profile
# The least margin above and below accuracies: differences too small for a test set must not fill a chart's height.
_SHARE_MARGIN = 0.004


@dataclass(frozen=True)
class Panel:
    """One chart of a model; the page puts it below a heading with the model's name."""

    svg: str
    caption: str
    model: str


@dataclass(frozen=True)
class Panels:
    """Charts of one kind, their legends, the table of the same figures, and notes on what is missing."""

    panels: tuple[Panel, ...] = ()
    keys: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()

    @property
    def by_model(self) -> dict[str, list[Panel]]:
        """The charts of each model, in order."""
        panels: dict[str, list[Panel]] = {}
        for panel in self.panels:
            panels.setdefault(panel.model, []).append(panel)
        return panels


def _drift(row: ReportRow) -> Drift | None:
    return row.validation.drift if row.validation else None


def _rows_by_subject(report: Report) -> dict[str, list[ReportRow]]:
    rows: dict[str, list[ReportRow]] = {}
    for row in report.rows:
        rows.setdefault(subject_of(row), []).append(row)
    return rows


def _targets(report: Report) -> tuple[str, ...]:
    return tuple(sorted({row.artifact.manifest.target for row in report.rows}))


def _costs(rows: Sequence[ReportRow]) -> Iterator[tuple[str, str, str, dict[int, float]]]:
    """Yield the costs of the artifacts: size, then the latency of each device and tier.

    Tiers of bounds are left out: a bound does not tell which of two artifacts is faster.

    Yields:
        Name, device and tier of the cost, and its value by index into `rows`: bytes, or ms.
    """
    yield "size", "", "", {index: float(row.artifact.manifest.size_bytes) for index, row in enumerate(rows)}
    devices = sorted({bench.device for row in rows for bench in row.measurements})
    for device in devices:
        for tier in (tier.name for tier in reversed(TIERS) if not tier.is_bound):
            latencies = {
                index: bench.latency_ms[tier]
                for index, row in enumerate(rows)
                for bench in row.measurements
                if bench.device == device and tier in bench.latency_ms
            }
            if latencies:
                yield "latency", device, tier, latencies


def tradeoffs(report: Report) -> Panels:
    """Return the charts of size and of latency against the task metric; a note names the models without a metric."""
    panels: list[Panel] = []
    without_metric = []
    for subject, rows in _rows_by_subject(report).items():
        with_metric = [row for row in rows if _drift(row) is not None]
        if not with_metric:
            without_metric.append(subject)
            continue
        panels += [_tradeoff(report, subject, with_metric, *cost) for cost in _costs(with_metric) if len(cost[3]) > 1]
    targets = _targets(report)
    keys = (charts.target_key(targets), _precision_key(report)) if panels else ()
    names = ", ".join(without_metric)
    notes = (f"Not shown, since they have no task metric on a test set: {names}.",) if without_metric else ()
    return Panels(tuple(panels), keys, _tradeoff_table(report), notes)


def _precision_key(report: Report) -> str:
    present = {row.artifact.manifest.precision for row in report.rows}
    names = [name for name in precision_names() if name in present]
    return charts.color_key([(name, charts.color_of(name)) for name in names], "Colors: " + ", ".join(names))


def _tradeoff(
    report: Report, subject: str, rows: Sequence[ReportRow], name: str, device: str, tier: str, costs: dict[int, float]
) -> Panel:
    first = _drift(rows[0])
    assert first is not None  # the caller passes rows with a metric only
    metric = TASK_METRICS[first.metric]
    values = {index: drift.artifact for index in costs if (drift := _drift(rows[index])) is not None}
    sign = -1.0 if metric.higher_is_better else 1.0
    on_front = pareto_front([(costs[index], sign * values[index]) for index in costs])
    points = [
        ChartPoint(
            str(rows[index].artifact.manifest.variant),
            rows[index].artifact.manifest.target,
            rows[index].artifact.manifest.precision,
            costs[index],
            values[index],
            best,
        )
        for index, best in zip(costs, on_front, strict=True)
    ]
    where = f", {device}, tier {tier}" if device else ""
    better = "" if metric.higher_is_better else ", lower is better"
    names = ", ".join(point.name for point in points if point.on_front)
    title = f"{subject}: {metric.name} against {name}{where}. Pareto front: {names}"
    svg = charts.scatter(
        title,
        points,
        Axis(f"{name}{where}", format_ms if device else format_bytes),
        Axis(f"{metric.name}{better}", lambda value: metric_text(first, value)),
        targets=_targets(report),
        level=first.source,
        less_is_better=not metric.higher_is_better,
        margin=_SHARE_MARGIN if metric.is_share else 0.05 * abs(first.source),
    )
    return Panel(svg, f"{name}{where}", subject)


def _tradeoff_table(report: Report) -> Table:
    """Return size, metric and each latency of the artifacts that have a metric, with the Pareto front of all three."""
    columns = (
        *NAMES,
        Column("size", True),
        Column("metric", True),
        Column("device"),
        Column("tier"),
        Column("latency", True),
        Column("front", False, "on the Pareto front of size, metric and latency of the model's artifacts"),
    )
    lines = []
    for rows in _rows_by_subject(report).values():
        with_metric = [row for row in rows if _drift(row) is not None]
        costs = list(_costs(with_metric))
        for _, device, tier, values in costs[1:] or costs:
            marks = pareto_front([_coordinates(with_metric[index], values[index]) for index in values])
            for index, best in zip(values, marks, strict=True):
                lines.append(_tradeoff_line(with_metric[index], device, tier, values[index], best))
    return Table("tradeoffs", "Size, task metric and latency, and the Pareto front of the three", columns, tuple(lines))


def _coordinates(row: ReportRow, cost: float) -> tuple[float, float, float]:
    drift = _drift(row)
    assert drift is not None  # the caller passes rows with a metric only
    return float(row.artifact.manifest.size_bytes), drift.drop, cost


def _tradeoff_line(row: ReportRow, device: str, tier: str, cost: float, best: bool) -> Line:
    drift, size = _drift(row), row.artifact.manifest.size_bytes
    assert drift is not None  # the caller passes rows with a metric only
    return line(
        row,
        TableCell(format_bytes(size), size),
        TableCell(metric_text(drift, drift.artifact), drift.artifact),
        TableCell(device or "-"),
        TableCell(tier or "-"),
        TableCell(format_ms(cost), cost) if device else TableCell("-"),
        TableCell("on front" if best else "", 0 if best else 1, "good" if best else ""),
    )


def distributions(report: Report) -> Panels:
    """Return the charts of wall times by model: median, 90th percentile, and the range from minimum to the 99th."""
    names = _device_names(report)
    panels = []
    for subject, rows in _rows_by_subject(report).items():
        if any(row.measurements for row in rows):
            used = [name for name in names if any(_bench_on(row, name) for row in rows)]
            caption = f"on the host, {_conditions(used)}"
            title = f"{subject}: wall time of one inference {caption}"
            svg = _by_device(title, rows, names, _wall, Axis("wall time, host tier", format_ms))
            panels.append(Panel(svg, caption, subject))
    return Panels(tuple(panels), _device_key(names))


def _conditions(devices: Sequence[str]) -> str:
    profiles = [name for name in devices if name != _HOST]
    without = ["without a profile"] if _HOST in devices else []
    return " and ".join([*without, *([f"with the profile of {', '.join(profiles)}"] if profiles else [])])


def _wall(bench: Measurement) -> Span:
    wall = bench.wall
    return Span(wall.p50_ms, (wall.p50_ms, wall.p90_ms), (wall.min_ms, wall.p99_ms))


def devices(report: Report) -> Panels:
    """Return one chart for each model and tier: the latency of every device."""
    panels = []
    names = _device_names(report)
    for subject, rows in _rows_by_subject(report).items():
        tiers = {tier for row in rows for bench in row.measurements for tier in tiers_of(bench)}
        for tier in (tier for tier in reversed(TIER_NAMES) if tier in tiers):
            title = f"{subject}: latency by device, tier {tier}"
            axis = Axis(f"latency, tier {tier}", format_ms)
            svg = _by_device(title, rows, names, partial(_latency, tier=tier), axis)
            panels.append(Panel(svg, f"tier {tier}", subject))
    return Panels(tuple(panels), _device_key(names))


def _device_names(report: Report) -> list[str]:
    return sorted({bench.device for row in report.rows for bench in row.measurements})


# The first two series are both blue: the second one comes last.
_DISTINCT_ORDER = (0, 2, 3, 4, 5, 1)


def _device_color(names: Sequence[str], name: str) -> str:
    return charts.SERIES[_DISTINCT_ORDER[names.index(name) % len(_DISTINCT_ORDER)]]


def _device_key(names: Sequence[str]) -> tuple[str, ...]:
    colored = [(name, _device_color(names, name)) for name in names]
    return (charts.color_key(colored, "Colors: " + ", ".join(names)),) if names else ()


def _bench_on(row: ReportRow, device: str) -> Measurement | None:
    return next((bench for bench in row.measurements if bench.device == device), None)


def _by_device(
    title: str, rows: Sequence[ReportRow], names: Sequence[str], span: Callable[[Measurement], Span | None], axis: Axis
) -> str:
    """Return a chart with a line for each artifact and device for which `span` returns a value."""
    spans_by_row = [
        (row, [None if (bench := _bench_on(row, name)) is None else span(bench) for name in names])
        for row in rows
    ]  # fmt: skip
    shown = [(row, spans) for row, spans in spans_by_row if any(spans)]
    series = {name: [spans[index] for _, spans in shown] for index, name in enumerate(names)}
    nonempty = {name: spans for name, spans in series.items() if any(spans)}
    variants = [str(row.artifact.manifest.variant) for row, _ in shown]
    return charts.ranges(title, variants, nonempty, [_device_color(names, name) for name in nonempty], axis)


def _latency(bench: Measurement, tier: str) -> Span | None:
    if tier not in bench.latency_ms:
        return None
    return Span(bench.latency_ms[tier], None, bench.interval_ms(tier))
