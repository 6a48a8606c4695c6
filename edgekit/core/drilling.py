"""Two artifacts of a model tensor by tensor: which inner tensors belong together, and where their error leaps."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.core import metrics
from edgekit.core.metrics import Array

LEAP_DB = 10.0
"""A tensor whose SQNR is so much lower than that of every tensor before it is where something broke."""

_DECORATION = re.compile(r"_(De)?[qQ]uantize(d|Linear)(_(Input|Output))?$|_quantized$|_output_0$|:0$")
_CEILING_DB = 140.0  # float32 against itself in another order of summation
_HEALTHY_DB = 30.0  # what a quantized tensor may be expected to have: the first one has none before it
_ALIKE = 0.97  # cosine


@dataclass(frozen=True)
class TensorDiff:
    """An inner tensor of the reference and its twin. `leap_db` is how far its SQNR lies below all before it.

    `sqnr_db` is None where both are equal; ranges are those of all samples.
    """

    reference: str
    actual: str
    shape: tuple[int, ...]
    sqnr_db: float | None
    cosine: float
    max_abs_error: float
    reference_range: tuple[float, float]
    actual_range: tuple[float, float]
    leap_db: float


@dataclass(frozen=True)
class Drilling:
    """Every matched tensor in the order in which it is computed, and the names that have no twin.

    `first` is the first tensor where the error leaps, None where it never does.
    """

    tensors: tuple[TensorDiff, ...]
    only_reference: tuple[str, ...]
    only_actual: tuple[str, ...]

    @property
    def first(self) -> TensorDiff | None:
        """The first tensor whose SQNR falls by `LEAP_DB` below that of every one before it."""
        return next((item for item in self.tensors if item.leap_db >= LEAP_DB), None)


def plain(name: str) -> str:
    """A tensor's name without what quantizers and exporters add to it."""
    first = name.split(";", maxsplit=1)[0]
    parts = [part for index, part in enumerate(first.split("/")) if not (index and first.split("/")[index - 1] == part)]
    return _DECORATION.sub("", "/".join(parts))


def match(reference: Mapping[str, Array], actual: Mapping[str, Array]) -> list[tuple[str, str]]:
    """Pairs of names, in the reference's order.

    First what is called alike and computes alike; then what computes alike, since a quantizer that fuses an activation
    leaves the name of the tensor before it; then what is only called alike; then equal shapes in the same order.
    """
    pairs: dict[str, str] = {}
    _by_name(reference, actual, pairs, _ALIKE)
    _by_value(reference, actual, pairs)
    _by_name(reference, actual, pairs, -1.0)
    left = [name for name in reference if name not in pairs]
    right = [name for name in actual if name not in set(pairs.values())]
    shapes = [[str(arrays[name].shape) for name in names] for arrays, names in ((reference, left), (actual, right))]
    matcher = difflib.SequenceMatcher(None, shapes[0], shapes[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        pairs |= {left[block.a + step]: right[block.b + step] for step in range(block.size)}
    return [(name, pairs[name]) for name in reference if name in pairs]


def _by_name(reference: Mapping[str, Array], actual: Mapping[str, Array], pairs: dict[str, str], least: float) -> None:
    for key in (str, plain):
        taken = set(pairs.values())
        known = {key(name): name for name in actual if name not in taken}
        for name, array in reference.items():
            twin = known.get(key(name))
            if name in pairs or twin is None or actual[twin].shape != array.shape:
                continue
            if least <= -1 or metrics.cosine(array, actual[twin]) >= least:
                pairs[name] = known.pop(key(name))


def _by_value(reference: Mapping[str, Array], actual: Mapping[str, Array], pairs: dict[str, str]) -> None:
    free = [name for name in actual if name not in set(pairs.values())]
    for name, array in reference.items():
        candidates = [twin for twin in free if actual[twin].shape == array.shape] if name not in pairs else []
        likeness = {twin: metrics.cosine(array, actual[twin]) for twin in candidates}
        best = max(likeness, key=likeness.__getitem__, default=None)
        if best is not None and likeness[best] >= _ALIKE:
            pairs[name] = best
            free.remove(best)


def drill(reference: Mapping[str, Array], actual: Mapping[str, Array]) -> Drilling:
    """Compares inner tensors by name, shape (N, ...), each mapping in the order of computation."""
    pairs = match(reference, actual)
    found: list[TensorDiff] = []
    floor = _HEALTHY_DB
    for one, other in pairs:
        item = _compared(one, other, reference[one], actual[other], floor)
        known = _CEILING_DB if item.sqnr_db is None else item.sqnr_db
        floor = known if len(found) == 0 else min(floor, known)
        found.append(item)
    matched = {other for _, other in pairs}
    return Drilling(
        tuple(found),
        tuple(name for name in reference if name not in dict(pairs)),
        tuple(name for name in actual if name not in matched),
    )


def _compared(one: str, other: str, reference: Array, actual: Array, floor: float) -> TensorDiff:
    sqnr = metrics.sqnr_db(reference, actual)
    known = _CEILING_DB if math.isinf(sqnr) and sqnr > 0 else max(sqnr, -_CEILING_DB)
    return TensorDiff(
        one,
        other,
        reference.shape[1:],
        None if math.isinf(sqnr) and sqnr > 0 else known,
        metrics.cosine(reference, actual),
        metrics.max_abs_error(reference, actual),
        _range(reference),
        _range(actual),
        max(0.0, floor - known),
    )


def _range(array: Array) -> tuple[float, float]:
    values = array.astype(np.float64)
    return float(values.min()), float(values.max())
