"""Two artifacts of a model tensor by tensor: which inner tensors belong together, and where their error leaps."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.core.numerics import metrics
from edgekit.core.numerics.metrics import Array

DIVERGENCE_DB = 10.0
"""A tensor whose SQNR is so much lower than that of every tensor before it is where something broke."""

CEILINGS_DB: Mapping[str, float] = {"float32": 90.0, "float16": 70.0, "int16x8": 60.0}
"""Above this a tensor is as near as its precision can be, and the error may leap as it likes."""
CEILING_DB = 45.0
"""The same for 8 bits and less."""
HEALTHY_DB: Mapping[str, float] = {"float32": 50.0, "float16": 35.0, "int16x8": 25.0}
"""Below this a tensor is none to hold on to: something before it broke."""

_DECORATION = re.compile(r"_(De)?[qQ]uantize(d|Linear)(_(Input|Output))?$|_quantized$|_output_0$|:0$")
_FIRST_DB = 15.0  # how far below the ceiling the first tensor may be, which has none before it
_BOTTOM_DB = -140.0
_ALIKE = 0.97  # cosine
_NORMS = (0.8, 1.25)  # of what is alike
_DIGITS = 7  # of a cosine
_FEW = 4  # samples are enough to tell which tensors belong together


@dataclass(frozen=True)
class TensorDiff:
    """An inner tensor of the reference and its twin. `divergence_db` is how far its SQNR lies below all before it.

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
    divergence_db: float


@dataclass(frozen=True)
class LayerwiseDiff:
    """Every matched tensor in the order in which it is computed, and the names that have no twin.

    `first` is the first tensor where the error leaps, None where it never does.
    """

    tensors: tuple[TensorDiff, ...]
    only_reference: tuple[str, ...]
    only_actual: tuple[str, ...]

    @property
    def first(self) -> TensorDiff | None:
        """The first tensor whose SQNR falls by `LEAP_DB` below that of every one before it."""
        return next((item for item in self.tensors if item.divergence_db >= DIVERGENCE_DB), None)


def normalize_name(name: str) -> str:
    """A tensor's name without what quantizers and exporters add to it."""
    first = name.split(";", maxsplit=1)[0]
    parts = [part for index, part in enumerate(first.split("/")) if not (index and first.split("/")[index - 1] == part)]
    return _DECORATION.sub("", "/".join(parts))


def match_tensors(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    outputs: Sequence[tuple[str, str]] = (),
    healthy_db: float = 0.0,
) -> list[tuple[str, str]]:
    """Pairs of names, in the reference's order.

    `outputs` are the pairs that are known. Then what is called alike and computes alike; then what computes alike under
    other names and in other layouts, since a quantizer that fuses an activation leaves the name of the tensor before
    it; then what is only called alike. Where an output is not what it should be, something broke on the way: what is
    left behind the last tensor that computes alike is paired by shape and order; `healthy_db` says what is alike there.
    """
    likeness = _Similarity(reference, actual)
    pairs = {one: other for one, other in outputs if likeness.fits(one, other)}
    _by_name(likeness, pairs, alike=True)
    _by_value(likeness, pairs)
    anchors = {one: other for one, other in pairs.items() if likeness.alike(one, other, healthy_db)}
    _by_name(likeness, pairs, alike=False)
    last = [one for one, _ in outputs] or list(reference)[-1:]
    if any(one not in anchors for one in last):
        _by_order(likeness, pairs, anchors)
    return [(name, pairs[name]) for name in reference if name in pairs]


class _Similarity:
    """Cosines of inner tensors, whatever the order of their dimensions, looked at on a few samples and kept."""

    def __init__(self, reference: Mapping[str, Array], actual: Mapping[str, Array]) -> None:
        self.reference, self.actual = reference, actual
        self._sides = [{name: _Fingerprint.at(array) for name, array in side.items()} for side in (reference, actual)]
        self._known: dict[tuple[str, str], float | None] = {}

    def of(self, one: str, other: str) -> float | None:
        """The cosine; None where the shapes cannot be the same."""
        key = (one, other)
        if key not in self._known:
            first, second = self._sides[0][one], self._sides[1][other]
            order = best_permutation(first.few, second.few)
            self._known[key] = None if order is None else metrics.cosine(first.few, np.transpose(second.few, order))
        return self._known[key]

    def fits(self, one: str, other: str) -> bool:
        """Whether both have the same dimensions, in an order that a layout can have."""
        return self._sides[0][one].dims == self._sides[1][other].dims and self.of(one, other) is not None

    def alike(self, one: str, other: str, healthy_db: float = 0.0) -> bool:
        """Whether both compute the same, up to quantization: of one size, and nearly parallel."""
        first, second = self._sides[0][one], self._sides[1][other]
        if first.dims != second.dims or not _NORMS[0] * first.norm <= second.norm <= _NORMS[1] * first.norm:
            return False
        # Of nearly parallel vectors the noise is 2 * (1 - cosine) of the signal.
        return (self.of(one, other) or 0.0) >= max(_ALIKE, 1 - 10 ** (-healthy_db / 10) / 2)


@dataclass(frozen=True)
class _Fingerprint:
    """A few samples of a tensor without its dimensions of one, those dimensions sorted, and its length."""

    few: Array
    dims: tuple[int, ...]
    norm: float

    @classmethod
    def at(cls, array: Array) -> _Fingerprint:
        few = squeeze_shape(array[:_FEW])
        return cls(few, tuple(sorted(few.shape[1:])), float(np.linalg.norm(few.astype(np.float64).ravel())))


def squeeze_shape(array: Array) -> Array:
    """Without dimensions of one, samples (the first dimension) apart."""
    return array.reshape(len(array), *(size for size in array.shape[1:] if size != 1))


def best_permutation(reference: Array, actual: Array) -> tuple[int, ...] | None:
    """How the second one's dimensions stand in the first: as they are, or the channels moved to the other end.

    Both are squeezed, shape (N, ...). Of several that fit the most alike is taken; None where none fits. Other
    permutations are not tried: height and width swapped are a fault, and no layout.
    """
    rank = reference.ndim
    rotated = ((0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))) if rank > 2 else ()
    orders: list[tuple[int, ...]] = [
        order
        for order in dict.fromkeys((tuple(range(rank)), *rotated))
        if rank == actual.ndim and tuple(actual.shape[index] for index in order) == reference.shape
    ]
    if rank == 3 and len(orders) > 1:  # a square: swapping its sides is no layout either
        return orders[0]
    likeness = {order: metrics.cosine(reference, np.transpose(actual, order)) for order in orders}
    return max(likeness, key=likeness.__getitem__, default=None)


def _by_name(likeness: _Similarity, pairs: dict[str, str], *, alike: bool) -> None:
    for key in (str, normalize_name):
        taken = set(pairs.values())
        known = {key(name): name for name in likeness.actual if name not in taken}
        for name in likeness.reference:
            twin = known.get(key(name))
            if name in pairs or twin is None or not likeness.fits(name, twin):
                continue
            # A quantizer that fuses an activation gives it the name of what came before: that is no pair.
            if likeness.alike(name, twin) if alike else not any(likeness.alike(other, twin) for other in pairs):
                pairs[name] = known.pop(key(name))


def _by_value(likeness: _Similarity, pairs: dict[str, str]) -> None:
    """The most alike first: a bias changes little, and what comes before it must not take the place of what follows."""
    taken = set(pairs.values())
    found = [
        (round(1 - (likeness.of(name, twin) or 0.0), _DIGITS), name, twin)
        for name in likeness.reference
        if name not in pairs
        for twin in likeness.actual
        if twin not in taken and likeness.alike(name, twin)
    ]
    for _, name, twin in sorted(found, key=lambda item: item[0]):  # the order of computation among equals
        if name not in pairs and twin not in taken:
            pairs[name] = twin
            taken.add(twin)


def _by_order(likeness: _Similarity, pairs: dict[str, str], anchors: Mapping[str, str]) -> None:
    """Pairs what stands behind the last pair that computes alike, by shape and order."""
    names, others = list(likeness.reference), list(likeness.actual)
    start = max((names.index(name) for name in anchors), default=-1) + 1
    other_start = max((others.index(name) for name in anchors.values()), default=-1) + 1
    taken = set(pairs.values())
    left = [name for name in names[start:] if name not in pairs]
    right = [name for name in others[other_start:] if name not in taken]
    shapes = [
        [str(tuple(sorted(squeeze_shape(side[name]).shape[1:]))) for name in chosen]
        for side, chosen in ((likeness.reference, left), (likeness.actual, right))
    ]
    matcher = difflib.SequenceMatcher(None, shapes[0], shapes[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        twins = ((left[block.a + step], right[block.b + step]) for step in range(block.size))
        pairs |= {one: other for one, other in twins if likeness.fits(one, other)}


def diff_layers(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    precision: str = "int8",
    outputs: Sequence[tuple[str, str]] = (),
) -> LayerwiseDiff:
    """Compares inner tensors by name, shape (N, ...), each mapping in the order of computation.

    `precision` is the coarser one of the two, and says how near they can be expected to be; `outputs` are the pairs of
    outputs. What only repeats an earlier tensor (a dropout, a reshape) is left out.
    """
    ceiling = CEILINGS_DB.get(precision, CEILING_DB)
    reference, actual = (
        _distinct(side, {names[index] for names in outputs}) for index, side in enumerate((reference, actual))
    )
    pairs = match_tensors(reference, actual, outputs, HEALTHY_DB.get(precision, 0.0))
    found: list[TensorDiff] = []
    floor = ceiling - _FIRST_DB
    for one, other in pairs:
        item = _compared(one, other, reference[one], actual[other], floor)
        known = ceiling if item.sqnr_db is None else min(item.sqnr_db, ceiling)
        floor = known if len(found) == 0 else min(floor, known)
        found.append(item)
    matched = {other for _, other in pairs}
    return LayerwiseDiff(
        tuple(found),
        tuple(name for name in reference if name not in dict(pairs)),
        tuple(name for name in actual if name not in matched),
    )


def _distinct(tensors: Mapping[str, Array], outputs: Container[str]) -> dict[str, Array]:
    """Without those that repeat the values of an earlier one; outputs always stay."""
    seen: set[tuple[tuple[int, ...], bytes]] = set()
    kept = {}
    for name, array in tensors.items():
        plainly = squeeze_shape(array)
        key = (plainly.shape, hashlib.sha256(plainly.tobytes()).digest())
        if key not in seen or name in outputs:
            kept[name] = array
        seen.add(key)
    return kept


def _compared(one: str, other: str, reference: Array, actual: Array, floor: float) -> TensorDiff:
    expected, found = squeeze_shape(reference), squeeze_shape(actual)
    order = best_permutation(expected, found)
    assert order is not None  # what does not fit is not paired
    found = np.transpose(found, order)
    sqnr = metrics.sqnr_db(expected, found)
    known = _BOTTOM_DB if math.isnan(sqnr) else max(sqnr, _BOTTOM_DB)
    return TensorDiff(
        one,
        other,
        reference.shape[1:],
        None if math.isinf(sqnr) and sqnr > 0 else known,
        metrics.cosine(expected, found),
        metrics.max_abs_error(expected, found),
        _range(expected),
        _range(found),
        max(0.0, floor - min(known, floor)),
    )


def _range(array: Array) -> tuple[float, float]:
    values = array.astype(np.float64)
    return float(values.min()), float(values.max())
