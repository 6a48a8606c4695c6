"""Drawings as SVG elements inside the HTML page: few bytes, text as text, colors from the page's style sheet.

A drawing has no inline styles, which the content security policy of the page forbids: `page.css` styles its classes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgekit.core.escape import visible

# Estimated width of a character in a text of 9 units; the font is the reader's.
CHAR_WIDTH = 5.2

Format = Callable[[float], str]
# The outlines of markers around (0, 0), 7 units wide.
_OUTLINES = (
    "M-3.5 0a3.5 3.5 0 1 1 7 0a3.5 3.5 0 1 1-7 0z",  # disc
    "M-3.2-3.2H3.2V3.2H-3.2z",  # square
    "M0-3.8L3.8 3.2H-3.8z",  # triangle
    "M0-4.4L4.4 0L0 4.4L-4.4 0z",  # diamond
    "M0 3.8L3.8-3.2H-3.8z",  # triangle, point down
    "M-1.3-3.8H1.3V-1.3H3.8V1.3H1.3V3.8H-1.3V1.3H-3.8V-1.3H-1.3z",  # plus
    "M-3.6-1.8L-1.8-3.6L0-1.8L1.8-3.6L3.6-1.8L1.8 0L3.6 1.8L1.8 3.6L0 1.8L-1.8 3.6L-3.6 1.8L-1.8 0z",  # cross
)
MARKERS = tuple(range(len(_OUTLINES)))
# What the page defines once for all drawings.
MARKER_DEFINITIONS = "".join(f'<path id="m{index}" d="{outline}"/>' for index, outline in enumerate(_OUTLINES))


def number(value: float) -> str:
    """Return a coordinate, rounded to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0").replace("-0.", "-.") or "0"


def point(x: float, y: float) -> str:
    """Return two coordinates for the data of a path."""
    return f"{number(x)} {number(y)}"


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Return the data of a path through the points; equal coordinates are left out."""
    parts: list[str] = []
    last = ("", "")
    for x, y in points:
        here = number(x), number(y)
        if not parts:
            parts.append(f"M{here[0]} {here[1]}")
        elif here[1] == last[1]:
            parts.append(f"H{here[0]}")
        elif here[0] == last[0]:
            parts.append(f"V{here[1]}")
        else:
            parts.append(f"L{here[0]} {here[1]}")
        last = here
    return "".join(parts)


def _text(text: str) -> str:
    return html.escape(visible(text))


class Drawing:
    """An SVG element under construction; the origin is at the top left.

    Args:
        width: Width in units; text has a size of 9 units.
        height: Height in units.
        title: The name for screen readers.
        size: The class that limits the width on the page.
    """

    def __init__(self, width: float, height: float, title: str, size: str) -> None:
        self.width, self.height = width, height
        box = f"0 0 {number(width)} {number(height)}"
        self._head = f'<svg class="{size}" viewBox="{box}" role="img" aria-label="{_text(title)}">'
        self._parts: list[str] = []

    def path(self, data: str, classes: str, paint: str = "") -> None:
        """Add a path.

        Args:
            data: The attribute `d`; nothing is added for an empty one.
            classes: Its classes.
            paint: A further attribute from `paint`.
        """
        if data:
            self._parts.append(f'<path {_merge(classes, paint)} d="{data}"/>')

    def text(self, x: float, y: float, text: str, classes: str = "", *, upwards: bool = False) -> None:
        """Add a text.

        Args:
            x: The place of its start, or of what the classes `e` (end) and `m` (middle) anchor.
            y: The place of its baseline.
            text: The text.
            classes: Its classes.
            upwards: Whether it is read from bottom to top.
        """
        turned = f' transform="rotate(-90 {point(x, y)})"' if upwards else ""
        named = f' class="{classes}"' if classes else ""
        self._parts.append(f'<text{named} x="{number(x)}" y="{number(y)}"{turned}>{_text(text)}</text>')

    def marker(self, shape: int, x: float, y: float, classes: str, paint: str = "", tip: str = "") -> None:
        """Add a marker.

        Args:
            shape: One of MARKERS.
            x: Its center.
            y: Its center.
            classes: Its classes.
            paint: A further attribute from `paint`.
            tip: Its tooltip.
        """
        end = f"><title>{_text(tip)}</title></use>" if tip else "/>"
        self._parts.append(f'<use {_merge(classes, paint)} href="#m{shape}" x="{number(x)}" y="{number(y)}"{end}')

    def element(self) -> str:
        """Return the SVG element."""
        return f"{self._head}{''.join(self._parts)}</svg>"


def paint(color: str, series: Sequence[str]) -> str:
    """Return the attribute that sets the color of an element.

    Args:
        color: A color such as `#0a66b0`.
        series: The colors for which the page has the classes `c0`, `c1`, …, with a counterpart in dark mode.
    """
    return f'class="c{series.index(color)}"' if color in series else f'color="{html.escape(color)}"'


def _merge(classes: str, attribute: str) -> str:
    if attribute.startswith("class="):
        return f'class="{classes} {attribute[7:]}'
    return f'class="{classes}" {attribute}'.rstrip()


@dataclass(frozen=True)
class Scale:
    """Maps values to coordinates.

    Attributes:
        low: The value at `start`.
        high: The value at `end`, more than `low`.
        start: The coordinate of `low`.
        end: The coordinate of `high`.
        is_log: Whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        low, high, here = self.low, self.high, value
        if self.is_log:
            low, high, here = math.log10(low), math.log10(high), math.log10(here)
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """Return round values inside the scale.

        Args:
            most: The largest number of intervals of a linear scale.
            whole: Whether only whole numbers are allowed.
        """
        return self._log_ticks() if self.is_log else _round_values(self.low, self.high, most, whole)

    def _log_ticks(self) -> list[float]:
        ratio = self.high / self.low
        # more ticks per decade the narrower the range, so that an axis has about four to eight labels
        steps = (1.0, 2.0, 5.0) if ratio < 100 else (1.0, 3.0) if ratio < 1000 else (1.0,)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = max(1, len(decades) // 10)
        values = (step * 10.0**decade for decade in decades if decade % every == 0 for step in steps)
        return [value for value in values if self.low <= value <= self.high]


def _round_values(low: float, high: float, most: int, whole: bool) -> list[float]:
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    if whole:
        step = float(max(1, math.ceil(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def fit(values: Iterable[float], start: float, end: float, *, margin: float, log_ratio: float) -> Scale:
    """Return a scale that holds all values.

    Args:
        values: At least one value.
        start: The coordinate of the smallest value, before the margin.
        end: The coordinate of the largest value, before the margin.
        margin: The share of the range that stays free at each end.
        log_ratio: From this ratio of largest and smallest value the scale is logarithmic.
    """
    values = list(values)
    low, high = min(values), max(values)
    is_log = low > 0 and high / low >= log_ratio
    if is_log:
        pad = margin * math.log10(high / low)
        return Scale(10.0 ** (math.log10(low) - pad), 10.0 ** (math.log10(high) + pad), start, end, True)
    pad = margin * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - pad, high + pad, start, end)
