"""Which charts the HTML page has: for each model its trade-offs, its latency distributions, its devices."""

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
from edgekit.core.values.budgets import TIERS
from edgekit.core.values.specs import PRECISIONS
from edgekit.reports._html import charts
from edgekit.reports._html.charts import Axis, Point, Span
from edgekit.reports._html.tables import NAMES, Cell, Column, Line, Table, line, metric_text, subject_of, tiers_of

_HOST = "host"  # the device name of a bench without a profile
_SHARE_MARGIN = 0.004
"""Accuracies that differ by less than a test set can show must not fill the whole height of a chart."""


@dataclass(frozen=True)
class Panel:
    """One chart; its caption leaves out the model, under whose heading it stands."""

    svg: str
    caption: str
    model: str


@dataclass(frozen=True)
class Panels:
    """Charts of one kind, the keys to their colours and markers, and the table of the same figures."""

    panels: tuple[Panel, ...] = ()
    keys: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()

    @property
    def by_model(self) -> dict[str, list[Panel]]:
        """The panels of each model, in order."""
        found: dict[str, list[Panel]] = {}
        for panel in self.panels:
            found.setdefault(panel.model, []).append(panel)
        return found


def _drift(row: ReportRow) -> Drift | None:
    return row.validation.drift if row.validation else None


def _subjects(report: Report) -> dict[str, list[ReportRow]]:
    found: dict[str, list[ReportRow]] = {}
    for row in report.rows:
        found.setdefault(subject_of(row), []).append(row)
    return found


def _targets(report: Report) -> tuple[str, ...]:
    return tuple(sorted({row.artifact.manifest.target for row in report.rows}))


def _costs(rows: Sequence[ReportRow]) -> Iterator[tuple[str, str, str, dict[int, float]]]:
    """What an artifact costs: (name, device, tier, row index -> figure): its size, then each device's latency by tier.

    The analytic tier is left out: a bound says nothing about which of two artifacts is faster.
    """
    yield "size", "", "", {index: float(row.artifact.manifest.size_bytes) for index, row in enumerate(rows)}
    devices = sorted({item.device for row in rows for item in row.measurements})
    for device in devices:
        for tier in (tier for tier in reversed(TIERS) if tier != "analytic"):
            found = {
                index: item.latency_ms[tier]
                for index, row in enumerate(rows)
                for item in row.measurements
                if item.device == device and tier in item.latency_ms
            }
            if found:
                yield "latency", device, tier, found


def tradeoffs(report: Report) -> Panels:
    """Size and latency against the task metric; models without one are named."""
    panels: list[Panel] = []
    unjudged = []
    for subject, rows in _subjects(report).items():
        judged = [row for row in rows if _drift(row) is not None]
        if not judged:
            unjudged.append(subject)
            continue
        panels += [_tradeoff(report, subject, judged, *cost) for cost in _costs(judged) if len(cost[3]) > 1]
    targets = _targets(report)
    keys = (charts.target_key(targets), _precision_key(report)) if panels else ()
    what = ", ".join(unjudged)
    notes = (f"No trade-off without a task metric on a test set: {what}.",) if unjudged else ()
    return Panels(tuple(panels), keys, _tradeoff_table(report), notes)


def _precision_key(report: Report) -> str:
    present = {row.artifact.manifest.precision for row in report.rows}
    known = [name for name in PRECISIONS if name in present]
    return charts.color_key([(name, charts.color_of(name)) for name in known], "Colours: " + ", ".join(known))


def _tradeoff(
    report: Report, subject: str, rows: Sequence[ReportRow], name: str, device: str, tier: str, costs: dict[int, float]
) -> Panel:
    first = _drift(rows[0])
    assert first is not None  # the caller has looked
    metric = TASK_METRICS[first.metric]
    values = {index: drift.artifact for index in costs if (drift := _drift(rows[index])) is not None}
    sign = -1.0 if metric.higher_is_better else 1.0
    on_front = pareto_front([(costs[index], sign * values[index]) for index in costs])
    points = [
        Point(
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
    better = "" if metric.higher_is_better else ", less is better"
    names = ", ".join(point.name for point in points if point.on_front)
    title = f"{subject}: {metric.name} against {name}{where}. On the front: {names}"
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
    """Every artifact that has a metric, with each latency; `front` is of size, metric and that latency together."""
    columns = (
        *NAMES,
        Column("size", True),
        Column("metric", True),
        Column("device"),
        Column("tier"),
        Column("latency", True),
        Column("front", False, "no other artifact of the model is as small, as good and as fast, and better in one"),
    )
    lines = []
    for rows in _subjects(report).values():
        judged = [row for row in rows if _drift(row) is not None]
        costs = list(_costs(judged))
        for _, device, tier, found in costs[1:] or costs:
            marks = pareto_front([_coordinates(judged[index], found[index]) for index in found])
            for index, best in zip(found, marks, strict=True):
                lines.append(_tradeoff_cells(judged[index], device, tier, found[index], best))
    return Table(
        "tradeoffs", "Size, task metric and latency, and which artifacts no other beats", columns, tuple(lines)
    )


def _coordinates(row: ReportRow, cost: float) -> tuple[float, float, float]:
    drift = _drift(row)
    assert drift is not None  # the caller has looked
    return float(row.artifact.manifest.size_bytes), drift.drop, cost


def _tradeoff_cells(row: ReportRow, device: str, tier: str, cost: float, best: bool) -> Line:
    drift, size = _drift(row), row.artifact.manifest.size_bytes
    assert drift is not None  # the caller has looked
    return line(
        row,
        Cell(format_bytes(size), size),
        Cell(metric_text(drift, drift.artifact), drift.artifact),
        Cell(device or "-"),
        Cell(tier or "-"),
        Cell(format_ms(cost), cost) if device else Cell("-"),
        Cell("on it" if best else "", 0 if best else 1, "good" if best else ""),
    )


def distributions(report: Report) -> Panels:
    """Wall times by model, device beside device: median, up to the 90th percentile, from the fastest to the 99th."""
    names = _device_names(report)
    panels = []
    for subject, rows in _subjects(report).items():
        if any(row.measurements for row in rows):
            used = [name for name in names if any(_on(row, name) for row in rows)]
            caption = f"on the host, {_under(used)}"
            title = f"{subject}: wall time of one inference {caption}"
            svg = _by_device(title, rows, names, _wall, Axis("wall time, host tier", format_ms))
            panels.append(Panel(svg, caption, subject))
    return Panels(tuple(panels), _device_key(names))


def _under(devices: Sequence[str]) -> str:
    profiles = [name for name in devices if name != _HOST]
    words = ["as it is"] if _HOST in devices else []
    return " and ".join([*words, *([f"under the profile of {', '.join(profiles)}"] if profiles else [])])


def _wall(item: Measurement) -> Span:
    wall = item.wall
    return Span(wall.p50_ms, (wall.p50_ms, wall.p90_ms), (wall.min_ms, wall.p99_ms))


def devices(report: Report) -> Panels:
    """For each model and tier the latency on every device, side by side."""
    panels = []
    names = _device_names(report)
    for subject, rows in _subjects(report).items():
        tiers = {tier for row in rows for item in row.measurements for tier in tiers_of(item)}
        for tier in (tier for tier in reversed(TIERS) if tier in tiers):
            title = f"{subject}: latency by device, tier {tier}"
            axis = Axis(f"latency, tier {tier}", format_ms)
            svg = _by_device(title, rows, names, partial(_latency, tier=tier), axis)
            panels.append(Panel(svg, f"tier {tier}", subject))
    return Panels(tuple(panels), _device_key(names))


def _device_names(report: Report) -> list[str]:
    return sorted({item.device for row in report.rows for item in row.measurements})


_FAR_APART = (0, 2, 3, 4, 5, 1)  # the first two series are both blue


def _device_color(names: Sequence[str], name: str) -> str:
    return charts.SERIES[_FAR_APART[names.index(name) % len(_FAR_APART)]]


def _device_key(names: Sequence[str]) -> tuple[str, ...]:
    colored = [(name, _device_color(names, name)) for name in names]
    return (charts.color_key(colored, "Colours: " + ", ".join(names)),) if names else ()


def _on(row: ReportRow, device: str) -> Measurement | None:
    return next((item for item in row.measurements if item.device == device), None)


def _by_device(
    title: str, rows: Sequence[ReportRow], names: Sequence[str], span: Callable[[Measurement], Span | None], axis: Axis
) -> str:
    """A line for each artifact and device of which `span` tells something."""
    found = [
        (row, [None if (item := _on(row, name)) is None else span(item) for name in names])
        for row in rows
    ]  # fmt: skip
    shown = [(row, spans) for row, spans in found if any(spans)]
    series = {name: [spans[index] for _, spans in shown] for index, name in enumerate(names)}
    kept = {name: spans for name, spans in series.items() if any(spans)}
    variants = [str(row.artifact.manifest.variant) for row, _ in shown]
    return charts.ranges(title, variants, kept, [_device_color(names, name) for name in kept], axis)


def _latency(item: Measurement, tier: str) -> Span | None:
    if tier not in item.latency_ms:
        return None
    low, high = (item.emulated.low_ms, item.emulated.high_ms) if tier == "emulated" and item.emulated else (None, None)
    known = low is not None and high is not None
    return Span(item.latency_ms[tier], None, (low or 0.0, high or 0.0) if known else None)
