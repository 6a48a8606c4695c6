"""The error of an artifact by layer: a chart, and a table of the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.records.layer_errors import SOURCE, LayerErrors
from edgekit.reports._html import charts
from edgekit.reports._shared.cells import layer_cells

# The names of unmatched layers that are listed; quantizers add dozens, and `edgekit diff` lists them all.
_LISTED = 3


@dataclass(frozen=True)
class ByLayer:
    """The error of an artifact by layer.

    Attributes:
        svg: The chart.
        caption: The caption of chart and table.
        lines: Name, SQNR, cosine similarity and largest error of each layer, in the order of computation.
        divergence: The layer where the error diverges, in words.
        divergence_at: The number of that layer, counted from 1; 0 if the error diverges nowhere.
        unmatched: The side, and the names of its layers that have no counterpart on the other side.
    """

    svg: str
    caption: str
    lines: tuple[tuple[str, str, str, str], ...]
    divergence: str
    divergence_at: int
    unmatched: tuple[tuple[str, str], ...]


def by_layer(layers: LayerErrors) -> ByLayer:
    """Return chart, caption and table of a layer-wise diff."""
    first = layers.first
    at = 0 if first is None else layers.tensors.index(first) + 1
    name = f"{layers.model}/{layers.kind} {layers.variant}"
    divergence = "no divergence" if first is None else f"divergence at {first.reference}"
    caption = f"Error by layer against {_against(layers)}, {layers.samples} golden samples"
    title = f"{name}: SQNR of {len(layers.tensors)} layers against {_against(layers)}; {divergence}"
    lines = tuple((tensor.reference, *layer_cells(tensor)) for tensor in layers.tensors)
    sides = (("the reference", layers.only_reference), ("the artifact", layers.only_actual))
    unmatched = tuple((side, _abbreviated(names)) for side, names in sides if names)
    svg = charts.layers(title, [tensor.sqnr_db for tensor in layers.tensors], at)
    return ByLayer(svg, caption, lines, divergence, at, unmatched)


def _abbreviated(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more"


def _against(layers: LayerErrors) -> str:
    return "the source" if layers.reference == SOURCE else layers.reference
