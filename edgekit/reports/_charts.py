"""Charts as SVG, drawn by matplotlib: small, printable, the same bytes for the same figures.

Colours are CSS variables of the page around them, so that one drawing serves light and dark; text stays text.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from typing import Any

from edgekit.core.specs import PRECISIONS

INK, FAINT, GRID = "#1b1f24", "#5c6570", "#d9dde2"
SERIES = ("#0a66b0", "#3d9bdc", "#b86e00", "#00805a", "#a8457f", "#c4451c")
"""In the page: --s0 to --s5. Told apart by the colour-blind (after Okabe and Ito), 4.5:1 on the page's ground."""

_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", **{hex_: f"--s{i}" for i, hex_ in enumerate(SERIES)}}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
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
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.visible": False,
}
_NUMBERS = {"d", "x", "y", "transform"}
_LOG_FROM = 8  # the largest over the smallest: from here on an axis is logarithmic

Format = Callable[[float], str]


@dataclass(frozen=True)
class Axis:
    """What an axis shows, and how its numbers are written."""

    label: str
    format: Format


@dataclass(frozen=True)
class Point:
    """One artifact in a scatter; on its front it is filled and named."""

    name: str
    target: str
    precision: str
    x: float
    y: float
    on_front: bool


@dataclass(frozen=True)
class Span:
    """One line of a chart of ranges: a dot at `middle`, a thick line over `inner`, a thin one over `outer`."""

    middle: float
    inner: tuple[float, float] | None = None
    outer: tuple[float, float] | None = None


def color_of(precision: str) -> str:
    """The colour of a precision."""
    return SERIES[PRECISIONS.index(precision) % len(SERIES)]


def marker_of(target: str, targets: Sequence[str]) -> str:
    """The marker of a target among all targets of the page."""
    return _MARKERS[list(targets).index(target) % len(_MARKERS)]


@contextmanager
def _figure(key: str, width: float, height: float, fitted: bool = True) -> Iterator[Any]:
    """A matplotlib figure of so many inches, its axes `fitted` into it.

    `key` makes the ids in its SVG unlike those of other charts.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(width, height), layout="constrained" if fitted else None)
        FigureCanvasSVG(figure)
        yield figure


def _svg(figure: Any, title: str) -> str:
    """The figure as an element for a page: named for screen readers, without ids that another chart may have too."""
    stream = StringIO()
    empty = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=empty)
    root = ET.fromstring(stream.getvalue())  # noqa: S314 - our own drawing
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                element.remove(child)
        _clean(element)
    _flatten(root)
    width, height = (root.attrib.pop(name) for name in ("width", "height"))
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-label", title)
    root.set("style", f"max-width:{width};aspect-ratio:{width[:-2]}/{height[:-2]}")
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    text = ET.tostring(root, encoding="unicode")
    text = re.sub(r">\s+<", "><", text)
    return re.sub("|".join(_VARIABLES), lambda found: f"var({_VARIABLES[found[0]]})", text)


def _clean(element: ET.Element) -> None:
    """Drops ids that only count groups, makes a `tip:` id the title that a mouse shows, leaves the font to the page."""
    name = element.get("id", "")
    if name.startswith("tip:"):
        ET.SubElement(element, f"{{{_SVG}}}title").text = name[4:]
        element.insert(0, element[-1])
        del element[-1]
        element.set("class", "tip")  # a group that must stay
    if name and not re.fullmatch(r"[a-z][0-9a-f]{10}", name):  # those hashes are what clips and markers are found by
        del element.attrib["id"]
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in _NUMBERS & element.attrib.keys():
        element.set(name, " ".join(re.sub(r"(\d\.\d)\d+", r"\1", element.attrib[name]).split()))
    style = element.get("style")
    if style and "DejaVu Sans" in style:
        element.set("style", re.sub(r"font-family: [^;]*; ?", "", style))


def _flatten(element: ET.Element) -> None:
    """Puts the children of groups that say nothing in their groups' place, and drops what draws nothing."""
    kept: list[ET.Element] = []
    for child in list(element):
        _flatten(child)
        if child.tag == f"{{{_SVG}}}g" and not child.attrib:
            kept += list(child)
        elif not (child.tag == f"{{{_SVG}}}path" and child.get("style") == "fill: none"):
            kept.append(child)
    element[:] = kept


def _scale(axis: Any, which: str, values: Sequence[float], format_: Format) -> None:
    """Logarithmic where the values span much, linear where they do not; labels in the values' own unit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    line = getattr(axis, f"{which}axis")
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_FROM:
        getattr(axis, f"set_{which}scale")("log")
        steps = (1.0, 2.0, 5.0) if high / low < 40 else (1.0, 3.0) if high / low < 400 else (1.0,)
        line.set_major_locator(LogLocator(subs=steps, numticks=12))
        line.set_minor_locator(NullLocator())
        line.set_minor_formatter(NullFormatter())
    else:
        line.set_major_locator(MaxNLocator(4))
    line.set_major_formatter(FuncFormatter(lambda value, _position: format_(value)))


def _marker(axes: Any, point: Point, targets: Sequence[str], tip: str) -> None:
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
        gid=f"tip:{tip}",
        zorder=3,
        clip_on=False,
    )


def _step(points: Sequence[Point], less_is_better: bool) -> tuple[list[float], list[float]]:
    """The line that the front draws: from each point on it sideways, then to the level of the next."""
    front = sorted((point.x, point.y if less_is_better else -point.y) for point in points if point.on_front)
    xs, ys = [front[0][0]], [front[0][1]]
    for (_, level), (x, y) in pairwise(front):
        xs += [x, x]
        ys += [level, y]
    return xs, [y if less_is_better else -y for y in ys]


def scatter(
    key: str,
    title: str,
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    *,
    targets: Sequence[str],
    level: float,
    less_is_better: bool,
    margin: float,
) -> str:
    """Artifacts by a cost and a metric. `level` is the source's metric, a dashed line; `margin` the least distance of
    the metric's ends from the frame, in its own unit."""
    with _figure(key, 4.3, 3.1) as figure:
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


def _name(figure: Any, axes: Any, points: Sequence[Point], *, below: bool) -> None:
    """Writes the names of the points beside them, on the side that has room, one above the other where they meet."""
    figure.draw_without_rendering()
    left, right = axes.bbox.x0, axes.bbox.x1
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda item: item.x):
        px, py = axes.transData.transform((point.x, point.y))
        rise = -13 if below else 8
        while any(abs(px - x) < 110 and abs(py + rise - y) < 11 for x, y in taken):
            rise += -11 if below else 11
        taken.append((px, py + rise))
        share = (px - left) / (right - left)
        axes.annotate(
            f"{point.target}:{point.precision}",
            (point.x, point.y),
            xytext=(0, rise),
            textcoords="offset pixels",
            ha="left" if share < 0.3 else "right" if share > 0.7 else "center",
            fontsize=8,
            color=INK,
        )


def ranges(
    key: str,
    title: str,
    rows: Sequence[str],
    series: Mapping[str, Sequence[Span | None]],
    colors: Sequence[str],
    x: Axis,
) -> str:
    """A line for each row and series, on one axis; None where a series has nothing for a row."""
    count = len(series)
    with _figure(key, 5.6, 0.62 + len(rows) * max(0.21, 0.13 * count + 0.06)) as figure:
        axes = figure.add_subplot()
        spans = [span for found in series.values() for span in found if span is not None]
        _scale(axes, "x", [end for span in spans for end in _ends(span)], x.format)
        for index, found in enumerate(series.values()):
            offset = (index - (count - 1) / 2) * 0.7 / max(count, 2)
            for place, span in enumerate(found):
                if span is not None:
                    color = colors[place if count == 1 else index]
                    _span(axes, place + offset, span, color, f"{rows[place]}: {x.format(span.middle)}")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.set_xlabel(x.label)
        return _svg(figure, title)


def _ends(span: Span) -> tuple[float, ...]:
    return (span.middle, *(span.inner or ()), *(span.outer or ()))


def _span(axes: Any, height: float, span: Span, color: str, tip: str) -> None:
    for ends, width in ((span.outer, 1.0), (span.inner, 4.0)):
        if ends is not None:
            axes.plot(ends, [height, height], color=color, linewidth=width, alpha=0.55, solid_capstyle="butt")
    axes.plot([span.middle], [height], marker="o", markersize=5, color=color, gid=f"tip:{tip}")


def key_of(names: Sequence[tuple[str, str, str]], title: str) -> str:
    """A legend: (text, marker, colour) of each entry, in one line."""
    with _figure(
        f"key {title}", 0.25 + sum(0.34 + 0.078 * len(name) for name, _, _ in names), 0.24, fitted=False
    ) as figure:
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
    """The markers."""
    return key_of([(name, marker_of(name, targets), FAINT) for name in targets], "Markers: " + ", ".join(targets))


def color_key(names: Sequence[tuple[str, str]], title: str) -> str:
    """(name, colour) as dots."""
    return key_of([(name, "o", color) for name, color in names], title)
