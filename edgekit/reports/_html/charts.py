"""Charts as SVG: small, printable, and the same bytes for the same figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekit.core.values.precisions import PRECISIONS, find_precision
from edgekit.reports._html.svg import (
    CHAR_WIDTH,
    MARKERS,
    Drawing,
    Format,
    Scale,
    fit,
    number,
    paint,
    point,
    polyline,
)

# The color of what has no precision; page.css has its class and its dark counterpart, as for the others.
FAINT = "#5c6570"
# The colors of the built-in precisions, which page.css draws as the classes c0, c1, …; the last one is FAINT.
SERIES = (*(precision.color for precision in PRECISIONS), FAINT)
# An axis is logarithmic if its largest value is at least this many times the smallest one.
_LOG_RATIO = 8


@dataclass(frozen=True)
class Axis:
    """The label of an axis, and the format of its numbers."""

    label: str
    format: Format


@dataclass(frozen=True)
class ChartPoint:
    """One artifact in a scatter plot; on the Pareto front it is filled and named."""

    name: str
    target: str
    precision: str
    x: float
    y: float
    on_front: bool


@dataclass(frozen=True)
class Span:
    """One row of a range chart: a dot at `middle`, a thick line over `inner`, a thin line over `outer`."""

    middle: float
    inner: tuple[float, float] | None = None
    outer: tuple[float, float] | None = None


def color_of(precision: str) -> str:
    """Return the color of a precision."""
    return find_precision(precision).color


def marker_of(target: str, targets: Sequence[str]) -> int:
    """Return the marker of a target among all targets of the page."""
    return MARKERS[list(targets).index(target) % len(MARKERS)]


@dataclass(frozen=True)
class _Frame:
    """The area of a chart inside its axes."""

    left: float
    top: float
    right: float
    bottom: float


def _x_axis(drawing: Drawing, frame: _Frame, scale: Scale, axis: Axis, *, grid: bool = True) -> None:
    """Draw the line, the grid, the labels of the ticks and the label of a horizontal axis."""
    ticks = scale.ticks(5)
    if grid:
        drawing.path("".join(f"M{point(scale(tick), frame.top)}V{number(frame.bottom)}" for tick in ticks), "grid")
    drawing.path(f"M{point(frame.left, frame.bottom)}H{number(frame.right)}", "edge")
    free_from = -math.inf
    for tick in ticks:
        text = axis.format(tick)
        width = CHAR_WIDTH * len(text)
        x = min(scale(tick), drawing.width - width / 2)
        if x - width / 2 >= free_from:  # a label that would overlap the one before is left out
            drawing.text(x, frame.bottom + 13, text, "m f")
            free_from = x + width / 2 + 4
    drawing.text((frame.left + frame.right) / 2, drawing.height - 4, axis.label, "m f")


def _y_axis(drawing: Drawing, frame: _Frame, scale: Scale, texts: Mapping[float, str]) -> None:
    """Draw the line, the grid and the labels of the ticks of a vertical axis."""
    lines = (f"M{point(frame.left, scale(tick))}H{number(frame.right)}" for tick in texts)
    drawing.path("".join(lines), "grid")
    drawing.path(f"M{point(frame.left, frame.top)}V{number(frame.bottom)}", "edge")
    for tick, text in texts.items():
        drawing.text(frame.left - 6, scale(tick) + 3, text, "e")


def _step(points: Sequence[ChartPoint], less_is_better: bool) -> list[tuple[float, float]]:
    """Return the staircase through the points on the Pareto front."""
    front = sorted((point.x, point.y if less_is_better else -point.y) for point in points if point.on_front)
    corners = [front[0]]
    for (_, level), (x, y) in pairwise(front):
        corners += [(x, level), (x, y)]
    return [(x, y if less_is_better else -y) for x, y in corners]


def scatter(
    title: str,
    points: Sequence[ChartPoint],
    x: Axis,
    y: Axis,
    *,
    targets: Sequence[str],
    level: float,
    less_is_better: bool,
    margin: float,
) -> str:
    """Return a scatter plot of artifacts by a cost and a metric, with their Pareto front.

    Args:
        title: The text alternative of the chart.
        points: The artifacts.
        x: The axis of the cost.
        y: The axis of the metric.
        targets: All targets of the page, which share their markers.
        level: The metric of the source model, drawn as a dashed line.
        less_is_better: Whether a lower metric is better.
        margin: The least distance of the metrics from the frame, in the unit of the metric.
    """
    drawing = Drawing(310, 223, title, "narrow")
    heights = [level, *(mark.y for mark in points)]
    pad = max(margin, 0.12 * (max(heights) - min(heights))) or 1.0
    vertical = Scale(min(heights) - pad, max(heights) + pad, 187, 8)
    texts = {tick: y.format(tick) for tick in vertical.ticks(4)}
    frame = _Frame(26 + CHAR_WIDTH * max(map(len, texts.values()), default=0), 8, 302, 187)
    across = fit([mark.x for mark in points], frame.left, frame.right, margin=0.14, log_ratio=_LOG_RATIO)
    _x_axis(drawing, frame, across, x)
    _y_axis(drawing, frame, vertical, texts)
    drawing.text(11, (frame.top + frame.bottom) / 2, y.label, "m f", upwards=True)
    drawing.path(f"M{point(frame.left, vertical(level))}H{number(frame.right)}", "level")
    front = ((across(cost), vertical(metric)) for cost, metric in _step(points, less_is_better))
    drawing.path(polyline(front), "front")
    for mark in points:
        drawing.marker(
            marker_of(mark.target, targets),
            across(mark.x),
            vertical(mark.y),
            "full" if mark.on_front else "open",
            paint(color_of(mark.precision), SERIES),
            f"{mark.name}: {x.format(mark.x)}, {y.format(mark.y)}",
        )
    best = [(mark.name, across(mark.x), vertical(mark.y)) for mark in points if mark.on_front]
    _name(drawing, frame, best, below=less_is_better)
    return drawing.element()


def _name(drawing: Drawing, frame: _Frame, marks: Sequence[tuple[str, float, float]], *, below: bool) -> None:
    """Write the names of markers above, or `below` them, shifted where two names would overlap."""
    placed: list[tuple[float, float, float]] = []
    for name, x, y in sorted(marks, key=lambda mark: mark[1]):
        share = (x - frame.left) / (frame.right - frame.left)
        anchor = "" if share < 0.3 else "e" if share > 0.7 else "m"
        width = CHAR_WIDTH * len(name)
        start = x - {"": 0.0, "m": width / 2, "e": width}[anchor]
        baseline = y + (14 if below else -7)
        while any(start < end and begin < start + width and abs(baseline - used) < 9 for begin, end, used in placed):
            baseline += 9 if below else -9
        placed.append((start, start + width, baseline))
        drawing.text(x, baseline, name, f"{anchor} t".strip())


def ranges(
    title: str,
    rows: Sequence[str],
    series: Mapping[str, Sequence[Span | None]],
    colors: Sequence[str],
    x: Axis,
) -> str:
    """Return a range chart: for each row one line per series, all on one axis.

    Args:
        title: The text alternative of the chart.
        rows: The names of the rows.
        series: The spans of each series, one per row; None leaves the line out.
        colors: The color of each series.
        x: The axis of the values.
    """
    count = len(series)
    pitch = max(15.0, 9.4 * count + 4)
    drawing = Drawing(403, 40 + pitch * len(rows), title, "wide")
    frame = _Frame(10 + CHAR_WIDTH * max(map(len, rows), default=0), 4, 395, 4 + pitch * len(rows))
    spans = [span for spans_of_rows in series.values() for span in spans_of_rows if span is not None]
    values = [end for span in spans for end in _ends(span)]
    across = fit(values, frame.left, frame.right, margin=0.06, log_ratio=_LOG_RATIO)
    _x_axis(drawing, frame, across, x)
    centers = [frame.top + pitch * (place + 0.5) for place in range(len(rows))]
    for center, name in zip(centers, rows, strict=True):
        drawing.text(frame.left - 6, center + 3, name, "e")
    for index, spans_of_rows in enumerate(series.values()):
        shift = pitch * (index - (count - 1) / 2) * 0.7 / max(count, 2)
        drawn = [
            (name, center + shift, span)
            for name, center, span in zip(rows, centers, spans_of_rows, strict=True)
            if span is not None
        ]
        color = paint(colors[index], SERIES)
        drawing.path("".join(_segment(across, y, span.outer) for _, y, span in drawn), "thin", color)
        drawing.path("".join(_segment(across, y, span.inner) for _, y, span in drawn), "thick", color)
        for name, y, span in drawn:
            drawing.marker(0, across(span.middle), y, "dot", color, f"{name}: {x.format(span.middle)}")
    return drawing.element()


def _segment(scale: Scale, y: float, ends: tuple[float, float] | None) -> str:
    """Return a horizontal line of a path."""
    return "" if ends is None else f"M{point(scale(ends[0]), y)}H{number(scale(ends[1]))}"


def _ends(span: Span) -> tuple[float, ...]:
    return (span.middle, *(span.inner or ()), *(span.outer or ()))


def layers(title: str, values: Sequence[float | None], divergence: int) -> str:
    """Return a line chart of the SQNR by layer.

    Args:
        title: The text alternative of the chart.
        values: The SQNR of each layer in dB, in the order of computation; None, drawn above all others, for exact ones.
        divergence: The number of the layer where the error diverges, counted from 1; 0 if it diverges nowhere.
    """
    finite = [value for value in values if value is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = high + max(3.0, 0.15 * (high - low)) if len(finite) < len(values) else high
    pad = max(2.0, 0.12 * (top - low))
    drawing = Drawing(403, 126, title, "wide")
    frame = _Frame(46, 7, 397, 98)
    across = Scale(0.5, len(values) + 0.5, frame.left, frame.right)
    vertical = Scale(low - pad, top + pad, frame.bottom, frame.top)
    _y_axis(drawing, frame, vertical, {tick: f"{tick:.0f} dB" for tick in vertical.ticks(3)})
    drawing.path(f"M{point(frame.left, frame.bottom)}H{number(frame.right)}", "edge")
    for tick in across.ticks(12, whole=True):
        drawing.text(across(tick), frame.bottom + 13, f"{tick:.0f}", "m f")
    drawing.text((frame.left + frame.right) / 2, drawing.height - 3, "layer, in the order of computation", "m f")
    places = [(across(place), vertical(top if value is None else value)) for place, value in enumerate(values, 1)]
    if divergence:
        drawing.path(f"M{point(across(divergence), frame.top)}V{number(frame.bottom)}", "divergence")
    color = paint(SERIES[0], SERIES)
    drawing.path(polyline(places), "thin", color)
    drawing.path(_dots(places), "dots", color)
    if divergence:
        drawing.path(_dots(places[divergence - 1 : divergence]), "dots divergence")
    return drawing.element()


def _dots(places: Iterable[tuple[float, float]]) -> str:
    """Return all dots as one path, lines of zero length with round caps: a fraction of the bytes of single markers."""
    return "".join(f"M{point(x, y)}h0" for x, y in places)


def key_of(names: Sequence[tuple[str, int, str]], title: str) -> str:
    """Return a legend in one line; an entry is (text, marker, color)."""
    drawing = Drawing(12 + sum(24 + CHAR_WIDTH * len(name) for name, _, _ in names), 17, title, "key")
    place = 8.0
    for name, shape, color in names:
        drawing.marker(shape, place, 8.5, "full", paint(color, SERIES))
        drawing.text(place + 9, 11.5, name)
        place += 24 + CHAR_WIDTH * len(name)
    return drawing.element()


def target_key(targets: Sequence[str]) -> str:
    """Return the legend of the markers."""
    return key_of([(name, marker_of(name, targets), FAINT) for name in targets], "Markers: " + ", ".join(targets))


def color_key(names: Sequence[tuple[str, str]], title: str) -> str:
    """Return a legend of colors; an entry is (name, color)."""
    return key_of([(name, MARKERS[0], color) for name, color in names], title)
