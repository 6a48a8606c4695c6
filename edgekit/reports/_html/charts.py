"""Charts as SVG, drawn by matplotlib: small, printable, and the same bytes for the same figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edgekit.core.values.precisions import PRECISIONS, find_precision
from edgekit.reports._html.svg import TIP, element

# Text, secondary text, grid lines; and the layer where an error diverges.
INK, FAINT, GRID = "#1b1f24", "#5c6570", "#d9dde2"
DIVERGENCE = "#b3261e"
# The colors of the built-in precisions; page.css has their dark counterparts, --s0 to --s5.
SERIES = tuple(precision.color for precision in PRECISIONS)

# Each color of a drawing becomes the CSS variable of the page, so that one drawing serves light and dark.
_VARIABLES = {
    DIVERGENCE: "--bad",
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    **{hex_: f"--s{i}" for i, hex_ in enumerate(SERIES)},
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "svg.hashsalt": "edgekit",  # a fixed salt: the same ids in every run
    "path.simplify": False,
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.parse_math": False,  # names may contain dollar signs
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.which": "major",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,  # the grid marks the places
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "xtick.minor.visible": False,
}
# An axis is logarithmic if its largest value is at least this many times the smallest one.
_LOG_RATIO = 8

Format = Callable[[float], str]


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


def marker_of(target: str, targets: Sequence[str]) -> str:
    """Return the marker of a target among all targets of the page."""
    return _MARKERS[list(targets).index(target) % len(_MARKERS)]


@contextmanager
def _figure(width: float, height: float, fit_axes: bool = True) -> Iterator[Any]:
    """Yield a matplotlib figure; width and height in inches."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained" if fit_axes else None)
        FigureCanvasSVG(figure)
        yield figure


def _svg(figure: Any, title: str) -> str:
    return element(figure, title, _VARIABLES)


def _scale(axis: Any, which: str, values: Sequence[float], format_: Format) -> None:
    """Make the axis logarithmic if the values span a wide range, linear otherwise; labels are in the values' unit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    line = getattr(axis, f"{which}axis")
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_RATIO:
        getattr(axis, f"set_{which}scale")("log")
        # more ticks per decade the narrower the range, so that an axis has about four to eight labels
        steps = (1.0, 2.0, 5.0) if high / low < 40 else (1.0, 3.0) if high / low < 400 else (1.0,)
        line.set_major_locator(LogLocator(subs=steps, numticks=12))
        line.set_minor_locator(NullLocator())
        line.set_minor_formatter(NullFormatter())
    else:
        line.set_major_locator(MaxNLocator(4))
    line.set_major_formatter(FuncFormatter(lambda value, _position: format_(value)))


def _marker(axes: Any, point: ChartPoint, targets: Sequence[str], tip: str) -> None:
    color = color_of(point.precision)
    axes.plot(
        [point.x],
        [point.y],
        marker=marker_of(point.target, targets),
        markersize=7,
        markerfacecolor=color if point.on_front else "none",
        markeredgecolor=color,
        markeredgewidth=1.3,
        linestyle="none",
        gid=TIP + tip,
        zorder=3,
        clip_on=False,
    )


def _step(points: Sequence[ChartPoint], less_is_better: bool) -> tuple[list[float], list[float]]:
    """Return the staircase through the points on the Pareto front."""
    front = sorted((point.x, point.y if less_is_better else -point.y) for point in points if point.on_front)
    xs, ys = [front[0][0]], [front[0][1]]
    for (_, level), (x, y) in pairwise(front):
        xs += [x, x]
        ys += [level, y]
    return xs, [y if less_is_better else -y for y in ys]


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
    with _figure(4.3, 3.1) as figure:
        axes = figure.add_subplot()
        _scale(axes, "x", [point.x for point in points], x.format)
        heights = [level, *(point.y for point in points)]
        pad = max(margin, 0.12 * (max(heights) - min(heights)))
        axes.set_ylim(min(heights) - pad, max(heights) + pad)
        _scale(axes, "y", [1.0], y.format)
        axes.margins(x=0.14)
        axes.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.plot(*_step(points, less_is_better), color=FAINT, linewidth=1, zorder=2)
        for point in points:
            _marker(axes, point, targets, f"{point.name}: {x.format(point.x)}, {y.format(point.y)}")
        axes.set_xlabel(x.label)
        axes.set_ylabel(y.label)
        axes.autoscale_view(scaley=False)
        _name(figure, axes, [point for point in points if point.on_front], below=less_is_better)
        return _svg(figure, title)


def _name(figure: Any, axes: Any, points: Sequence[ChartPoint], *, below: bool) -> None:
    """Annotate the points with their names: above, or `below`, shifted where two names would overlap."""
    figure.draw_without_rendering()
    left, right = axes.bbox.x0, axes.bbox.x1
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda marked: marked.x):
        px, py = axes.transData.transform((point.x, point.y))
        # offsets in pixels: the marker's radius and the text's height; a name is about 110 wide and 11 high
        rise = -13 if below else 8
        while any(abs(px - x) < 110 and abs(py + rise - y) < 11 for x, y in placed):
            rise += -11 if below else 11
        placed.append((px, py + rise))
        share = (px - left) / (right - left)
        axes.annotate(
            point.name,
            (point.x, point.y),
            xytext=(0, rise),
            textcoords="offset pixels",
            ha="left" if share < 0.3 else "right" if share > 0.7 else "center",
            fontsize=8,
            color=INK,
        )


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
    with _figure(5.6, 0.62 + len(rows) * max(0.21, 0.13 * count + 0.06)) as figure:
        axes = figure.add_subplot()
        spans = [span for spans_of_rows in series.values() for span in spans_of_rows if span is not None]
        _scale(axes, "x", [end for span in spans for end in _ends(span)], x.format)
        placed = [
            (place + (index - (count - 1) / 2) * 0.7 / max(count, 2), place, span, colors[index])
            for index, spans_of_rows in enumerate(series.values())
            for place, span in enumerate(spans_of_rows)
            if span is not None
        ]
        _lines(axes, [(height, span.outer, color) for height, _, span, color in placed], 1.0)
        _lines(axes, [(height, span.inner, color) for height, _, span, color in placed], 4.0)
        for height, place, span, color in placed:
            tip = f"{rows[place]}: {x.format(span.middle)}"
            axes.plot([span.middle], [height], marker="o", markersize=5, color=color, gid=TIP + tip)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.set_xlabel(x.label)
        return _svg(figure, title)


def _ends(span: Span) -> tuple[float, ...]:
    return (span.middle, *(span.inner or ()), *(span.outer or ()))


def layers(title: str, values: Sequence[float | None], divergence: int) -> str:
    """Return a line chart of the SQNR by layer.

    Args:
        title: The text alternative of the chart.
        values: The SQNR of each layer in dB, in the order of computation; None, drawn above all others, for exact ones.
        divergence: The number of the layer where the error diverges, counted from 1; 0 if it diverges nowhere.
    """
    from matplotlib.ticker import MaxNLocator

    finite = [value for value in values if value is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = high + max(3.0, 0.15 * (high - low)) if len(finite) < len(values) else high
    places = list(range(1, len(values) + 1))
    heights = [top if value is None else value for value in values]
    with _figure(5.6, 1.75, fit_axes=False) as figure:
        axes = figure.add_axes((0.115, 0.2, 0.87, 0.74))  # constrained layout takes longer than drawing
        if divergence:
            axes.axvline(divergence, color=DIVERGENCE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.plot(places, heights, color=SERIES[0], linewidth=1, zorder=2)
        _dots(axes, places, heights, SERIES[0])
        if divergence:
            _dots(axes, places[divergence - 1 : divergence], heights[divergence - 1 : divergence], DIVERGENCE)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:.0f} dB")
        axes.set_xlim(0.5, len(values) + 0.5)
        axes.set_ylim(*_padded(low, top))
        axes.set_xlabel("layer, in the order of computation", labelpad=1)
        axes.grid(visible=False, axis="x")
        return _svg(figure, title)


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis in dB with a margin at both ends."""
    pad = max(2.0, 0.12 * (high - low))
    return low - pad, high + pad


def _dots(axes: Any, xs: Sequence[float], ys: Sequence[float], color: str) -> None:
    """Draw all dots as one path, lines of zero length with round caps: a fraction of the bytes of single markers."""
    ends = [(x, x, math.nan) for x in xs], [(y, y, math.nan) for y in ys]
    flat = ([value for segment in side for value in segment] for side in ends)
    axes.plot(*flat, color=color, linewidth=4.5, solid_capstyle="round", zorder=3)


def _lines(axes: Any, spans: Sequence[tuple[float, tuple[float, float] | None, str]], width: float) -> None:
    """Draw horizontal lines, (height, ends, color) each; those of one color are one path."""
    for color in dict.fromkeys(color for _, ends, color in spans if ends is not None):
        xs: list[float] = []
        ys: list[float] = []
        for height, ends, line_color in spans:
            if ends is not None and line_color == color:
                xs += [*ends, math.nan]
                ys += [height, height, math.nan]
        axes.plot(xs, ys, color=color, linewidth=width, alpha=0.55, solid_capstyle="butt")


def key_of(names: Sequence[tuple[str, str, str]], title: str) -> str:
    """Return a legend in one line; an entry is (text, marker, color)."""
    # widths in inches: 0.34 for marker and gap, 0.078 for a character of 9 pt
    with _figure(0.25 + sum(0.34 + 0.078 * len(name) for name, _, _ in names), 0.24, fit_axes=False) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, figure.get_figwidth())
        axes.set_ylim(0, 1)
        place = 0.1
        for name, marker, color in names:
            axes.plot([place], [0.5], marker=marker, color=color, markersize=7, markeredgewidth=1.3)
            axes.text(place + 0.12, 0.5, name, va="center", fontsize=9, color=INK)
            place += 0.34 + 0.078 * len(name)
        return _svg(figure, title)


def target_key(targets: Sequence[str]) -> str:
    """Return the legend of the markers."""
    return key_of([(name, marker_of(name, targets), FAINT) for name in targets], "Markers: " + ", ".join(targets))


def color_key(names: Sequence[tuple[str, str]], title: str) -> str:
    """Return a legend of colors; an entry is (name, color)."""
    return key_of([(name, "o", color) for name, color in names], title)
