"""The error of an artifact layer by layer: its chart, and the table of the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.records.layer_errors import SOURCE, LayerErrors
from edgekit.reports._html import charts
from edgekit.reports._shared.cells import layer_cells

_LISTED = 3


@dataclass(frozen=True)
class ByLayer:
    """The chart, what it shows, a line for each layer (name, SQNR, cosine, max error), and which of them leaps."""

    svg: str
    caption: str
    lines: tuple[tuple[str, str, str, str], ...]
    leap: str
    leap_at: int
    """Counted from 1; 0 where the error leaps nowhere."""
    unmatched: tuple[tuple[str, str], ...]


def by_layer(layers: LayerErrors) -> ByLayer:
    """As the page shows it."""
    first = layers.first
    at = 0 if first is None else layers.tensors.index(first) + 1
    name = f"{layers.model}/{layers.kind} {layers.variant}"
    leap = "the error leaps nowhere" if first is None else f"the error leaps at {first.reference}"
    caption = f"Error by layer against {_against(layers)}, {layers.samples} golden samples"
    title = f"{name}: SQNR of {len(layers.tensors)} layers against {_against(layers)}; {leap}"
    lines = tuple((item.reference, *layer_cells(item)) for item in layers.tensors)
    sides = (("the reference", layers.only_reference), ("the artifact", layers.only_actual))
    unmatched = tuple((side, _some(names)) for side, names in sides if names)
    svg = charts.layers(title, [item.sqnr_db for item in layers.tensors], at)
    return ByLayer(svg, caption, lines, leap, at, unmatched)


def _some(names: Sequence[str]) -> str:
    """A quantizer adds dozens: a few say which, and the diff lists all."""
    listed = ", ".join(names[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more"


def _against(layers: LayerErrors) -> str:
    return "the source" if layers.reference == SOURCE else layers.reference
