"""Layer-wise diff of two models: pairing of their inner tensors, and the first tensor where their error diverges."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from edgekit.core.numerics import metrics
from edgekit.core.numerics.channel_errors import lost_channels
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.typed_json import Count, Name, NanIfNull, NotNegative

# All thresholds of this file, and `ceiling_db` and `anchor_db` of the precisions, are validated by `make bench-faults`:
# of 73 faults planted into the ONNX files of the reference models 72 are located, and no correct artifact of any format
# reports a divergence.

# A drop of the SQNR below that of all earlier tensors that counts as a divergence. Quantization noise grows by a few dB
# from layer to layer; a wrong operator costs tens.
DIVERGENCE_DB = 10.0

# Suffixes that ONNX Runtime's quantizer (`_quantized`, `_QuantizeLinear_Input` …), exporters to ONNX (`_output_0`) and
# TensorFlow (`:0`) add to a name.
_SUFFIXES = re.compile(r"_(De)?[qQ]uantize(d|Linear)(_(Input|Output))?$|_quantized$|_output_0$|:0$")
# The first tensor has none before it to compare with. It may be this far below the ceiling.
_FIRST_MARGIN_DB = 15.0
# Stands for an SQNR of minus infinity or NaN, so that differences stay finite; noise 10^7 times the signal.
_LOWEST_DB = -140.0
# Tensors compute the same where cosine and ratio of norms are within these limits: int8 noise of 12 dB and the clipping
# of a fused activation pass, unrelated tensors do not.
_MIN_COSINE = 0.97
_NORM_RATIOS = (0.8, 1.25)
# Cosines are compared with this many digits, so that pairs that differ by rounding alone count as equal.
_COSINE_DIGITS = 7
# Enough samples to find pairs; the error is computed on all of them.
_PAIRING_SAMPLES = 4


# A tensor with infinity or NaN has such figures too.
_StoredFloat = Annotated[float, NanIfNull()]


@dataclass(frozen=True)
class TensorDiff:
    """An inner tensor of the reference and its counterpart.

    Attributes:
        reference: Name in the reference.
        actual: Name in the other model.
        shape: Shape in the reference without the samples.
        sqnr_db: Signal to quantization noise ratio in dB; None where both are equal.
        cosine: Cosine similarity.
        max_abs_error: Largest absolute difference.
        reference_range: Smallest and largest value in the reference, over all samples.
        actual_range: Smallest and largest value in the other model.
        divergence_db: How far the SQNR is below that of all earlier tensors, in dB; 0 where it is not below.
    """

    reference: Name
    actual: Name
    shape: tuple[Count, ...]
    sqnr_db: float | None
    cosine: _StoredFloat
    max_abs_error: Annotated[NotNegative, NanIfNull()]
    reference_range: tuple[_StoredFloat, _StoredFloat]
    actual_range: tuple[_StoredFloat, _StoredFloat]
    divergence_db: float


@dataclass(frozen=True)
class LayerwiseDiff:
    """All pairs of inner tensors of two models.

    Attributes:
        tensors: The pairs in the order of computation.
        only_reference: Names of the reference without a counterpart.
        only_actual: Names of the other model without a counterpart.
    """

    tensors: tuple[TensorDiff, ...]
    only_reference: tuple[str, ...]
    only_actual: tuple[str, ...]

    @property
    def first(self) -> TensorDiff | None:
        """The first pair that diverges by `DIVERGENCE_DB` or more, or None."""
        return next((tensor for tensor in self.tensors if tensor.divergence_db >= DIVERGENCE_DB), None)


def normalize_name(name: str) -> str:
    """Remove what quantizers and exporters add to the name of a tensor.

    Args:
        name: The name in a model file. TFLite joins the names of fused operators with `;`, Keras repeats scopes.

    Returns:
        The name of the first operator, without repeated scopes and added suffixes.
    """
    first = name.split(";", maxsplit=1)[0]
    scopes = first.split("/")
    parts = [scope for index, scope in enumerate(scopes) if not (index and scopes[index - 1] == scope)]
    return _SUFFIXES.sub("", "/".join(parts))


def match_tensors(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    outputs: Sequence[tuple[str, str]] = (),
    anchor_db: float = 0.0,
) -> list[tuple[str, str]]:
    """Pair the inner tensors of two models.

    Tensors are paired in this order:

    1. The given outputs.
    2. Tensors with equal names and similar values.
    3. Tensors with similar values under different names and layouts: a quantizer that fuses an activation keeps the
       name of the tensor before it.
    4. Tensors with equal names only.
    5. Where an output differs, which means that the models diverge: all that follows the last similar pair, by shape
       and order.

    Args:
        reference: Inner tensors of the reference by name, shape (N, ...), in the order of computation.
        actual: The same of the other model.
        outputs: Pairs of names that are known to be counterparts.
        anchor_db: SQNR in dB from which a pair counts as similar in step 5.

    Returns:
        Pairs of names in the order of the reference.
    """
    similarity = _Similarity(reference, actual)
    pairs = {name: counterpart for name, counterpart in outputs if similarity.is_compatible(name, counterpart)}
    _pair_by_name(similarity, pairs, similar=True)
    _pair_by_value(similarity, pairs)
    anchors = {
        name: counterpart for name, counterpart in pairs.items() if similarity.is_similar(name, counterpart, anchor_db)
    }
    _pair_by_name(similarity, pairs, similar=False)
    last = [name for name, _ in outputs] or list(reference)[-1:]
    if any(name not in anchors for name in last):
        _pair_by_order(similarity, pairs, anchors)
    return [(name, pairs[name]) for name in reference if name in pairs]


class _Similarity:
    """Cached cosines between the tensors of two models on a few samples, for any layout."""

    def __init__(self, reference: Mapping[str, Array], actual: Mapping[str, Array]) -> None:
        self.reference, self.actual = reference, actual
        self._references = {name: _Fingerprint.of(array) for name, array in reference.items()}
        self._actuals = {name: _Fingerprint.of(array) for name, array in actual.items()}
        self._cosines: dict[tuple[str, str], float | None] = {}

    def cosine(self, name: str, counterpart: str) -> float | None:
        """Return the cosine in the best layout; None where the shapes are incompatible."""
        key = (name, counterpart)
        if key not in self._cosines:
            first, second = self._references[name], self._actuals[counterpart]
            order = best_permutation(first.values, second.values)
            self._cosines[key] = (
                None if order is None else metrics.cosine(first.values, np.transpose(second.values, order))
            )
        return self._cosines[key]

    def is_compatible(self, name: str, counterpart: str) -> bool:
        """Return whether a layout permutation turns one shape into the other."""
        # The sorted dimensions are compared first: computing a cosine is far more expensive.
        same_dims = self._references[name].dims == self._actuals[counterpart].dims
        return same_dims and self.cosine(name, counterpart) is not None

    def is_similar(self, name: str, counterpart: str, min_sqnr_db: float = 0.0) -> bool:
        """Return whether both tensors have the same values up to quantization noise."""
        first, second = self._references[name], self._actuals[counterpart]
        if first.dims != second.dims:
            return False
        if not _NORM_RATIOS[0] * first.norm <= second.norm <= _NORM_RATIOS[1] * first.norm:
            return False
        # Vectors of equal norm: |r - a|^2 / |r|^2 = 2 * (1 - cosine), which converts the SQNR to a cosine.
        return (self.cosine(name, counterpart) or 0.0) >= max(_MIN_COSINE, 1 - 10 ** (-min_sqnr_db / 10) / 2)


@dataclass(frozen=True)
class _Fingerprint:
    """The first samples of a tensor without dimensions of 1, its sorted other dimensions, and its norm."""

    values: Array
    dims: tuple[int, ...]
    norm: float

    @classmethod
    def of(cls, array: Array) -> _Fingerprint:
        values = squeeze_shape(array[:_PAIRING_SAMPLES])
        norm = float(np.linalg.norm(values.astype(np.float64).ravel()))
        return cls(values, tuple(sorted(values.shape[1:])), norm)


def squeeze_shape(array: Array) -> Array:
    """Remove dimensions of size 1, except for the samples.

    Args:
        array: Samples, shape (N, ...).

    Returns:
        The array without those dimensions, shape (N, ...).
    """
    return array.reshape(len(array), *(size for size in array.shape[1:] if size != 1))


def best_permutation(reference: Array, actual: Array) -> tuple[int, ...] | None:
    """Find the layout permutation that makes two tensors most similar.

    Args:
        reference: Squeezed samples of the reference, shape (N, ...).
        actual: Squeezed samples of the other model, shape (N, ...).

    Returns:
        The permutation of the dimensions of `actual`, either none or the one that moves the channels to the other end;
        None where neither results in the shape of the reference.
    """
    rank = reference.ndim
    # Other permutations are not tried: height and width exchanged are a fault and no layout.
    rotations = ((0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))) if rank > 2 else ()
    orders: list[tuple[int, ...]] = [
        order
        for order in dict.fromkeys((tuple(range(rank)), *rotations))
        if rank == actual.ndim and tuple(actual.shape[index] for index in order) == reference.shape
    ]
    if rank == 3 and len(orders) > 1:  # a square matrix: here a rotation is a transpose, which is a fault as well
        return orders[0]
    cosines = {order: metrics.cosine(reference, np.transpose(actual, order)) for order in orders}
    return max(cosines, key=cosines.__getitem__, default=None)


def _pair_by_name(similarity: _Similarity, pairs: dict[str, str], *, similar: bool) -> None:
    """Add pairs of equal names, exact names first; with `similar` only those of similar values."""
    for key in (str, normalize_name):
        paired = set(pairs.values())
        candidates = {key(name): name for name in similarity.actual if name not in paired}
        for name in similarity.reference:
            counterpart = candidates.get(key(name))
            if name in pairs or counterpart is None or not similarity.is_compatible(name, counterpart):
                continue
            # A quantizer that fuses an activation gives it the name of the tensor before, which is no pair.
            belongs_to_another = any(similarity.is_similar(paired_name, counterpart) for paired_name in pairs)
            if similarity.is_similar(name, counterpart) if similar else not belongs_to_another:
                pairs[name] = candidates.pop(key(name))


def _pair_by_value(similarity: _Similarity, pairs: dict[str, str]) -> None:
    """Add pairs of similar values, the most similar first."""
    # A bias changes little, so that the tensor before it is similar to the counterparts of both.
    paired = set(pairs.values())
    candidates = [
        (round(1 - (similarity.cosine(name, counterpart) or 0.0), _COSINE_DIGITS), name, counterpart)
        for name in similarity.reference
        if name not in pairs
        for counterpart in similarity.actual
        if counterpart not in paired and similarity.is_similar(name, counterpart)
    ]
    # Sorting is stable, so equally similar candidates stay in the order of computation.
    for _, name, counterpart in sorted(candidates, key=lambda candidate: candidate[0]):
        if name not in pairs and counterpart not in paired:
            pairs[name] = counterpart
            paired.add(counterpart)


def _pair_by_order(similarity: _Similarity, pairs: dict[str, str], anchors: Mapping[str, str]) -> None:
    """Add pairs behind the last anchor, by shape and order."""
    names, counterparts = list(similarity.reference), list(similarity.actual)
    start = max((names.index(name) for name in anchors), default=-1) + 1
    counterpart_start = max((counterparts.index(name) for name in anchors.values()), default=-1) + 1
    paired = set(pairs.values())
    left = [name for name in names[start:] if name not in pairs]
    right = [name for name in counterparts[counterpart_start:] if name not in paired]
    shapes = [
        [str(tuple(sorted(squeeze_shape(tensors[name]).shape[1:]))) for name in unpaired]
        for tensors, unpaired in ((similarity.reference, left), (similarity.actual, right))
    ]
    # autojunk would ignore shapes that repeat often, as those of a deep network's blocks do.
    matcher = difflib.SequenceMatcher(None, shapes[0], shapes[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        candidates = ((left[block.a + step], right[block.b + step]) for step in range(block.size))
        pairs |= {name: counterpart for name, counterpart in candidates if similarity.is_compatible(name, counterpart)}


def diff_layers(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    precision: str = "int8",
    outputs: Sequence[tuple[str, str]] = (),
) -> LayerwiseDiff:
    """Compare the inner tensors of two models.

    Args:
        reference: Inner tensors of the reference by name, shape (N, ...), in the order of computation.
        actual: The same of the other model.
        precision: The coarser precision of the two, which determines how similar they can be.
        outputs: Pairs of names of the outputs.

    Returns:
        The pairs with their errors. Tensors that repeat an earlier one (dropout, reshape) are left out.
    """
    row = find_precision(precision)
    ceiling = row.ceiling_db
    reference, actual = (
        _without_repeats(tensors, {names[index] for names in outputs})
        for index, tensors in enumerate((reference, actual))
    )
    pairs = match_tensors(reference, actual, outputs, row.anchor_db)
    diffs: list[TensorDiff] = []
    floor = ceiling - _FIRST_MARGIN_DB  # the lowest SQNR so far
    for name, counterpart in pairs:
        is_output = any(name == first for first, _ in outputs)
        diff = _diff_tensor(name, counterpart, reference[name], actual[counterpart], floor, is_output=is_output)
        sqnr = ceiling if diff.sqnr_db is None else min(diff.sqnr_db, ceiling)
        floor = sqnr if len(diffs) == 0 else min(floor, sqnr)
        diffs.append(diff)
    paired = {counterpart for _, counterpart in pairs}
    return LayerwiseDiff(
        tuple(diffs),
        tuple(name for name in reference if name not in dict(pairs)),
        tuple(name for name in actual if name not in paired),
    )


def _without_repeats(tensors: Mapping[str, Array], outputs: Container[str]) -> dict[str, Array]:
    """Return the tensors whose values no earlier one has, and all outputs."""
    digests: set[tuple[tuple[int, ...], bytes]] = set()
    distinct = {}
    for name, array in tensors.items():
        squeezed = squeeze_shape(array)
        key = (squeezed.shape, hashlib.sha256(squeezed.tobytes()).digest())
        if key not in digests or name in outputs:
            distinct[name] = array
        digests.add(key)
    return distinct


def _diff_tensor(
    name: str, counterpart: str, reference: Array, actual: Array, floor: float, *, is_output: bool
) -> TensorDiff:
    """Compare one pair; `floor` is the lowest SQNR of all earlier pairs in dB."""
    expected, values = squeeze_shape(reference), squeeze_shape(actual)
    order = best_permutation(expected, values)
    assert order is not None  # match_tensors pairs compatible shapes only
    values = np.transpose(values, order)
    sqnr = metrics.sqnr_db(expected, values)
    if is_output and np.isfinite(expected).all() and np.isfinite(values).all():
        # An output with a channel that is lost is no better than that channel, however accurate the others are.
        # Channels of inner tensors differ in scale in any network, and the next layer adds them up.
        lost = lost_channels(expected, values, find_precision("int8").tolerances)
        sqnr = min([sqnr, *(channel.sqnr_db for channel in lost if channel.sqnr_db is not None)])
    finite_sqnr = _LOWEST_DB if math.isnan(sqnr) else max(sqnr, _LOWEST_DB)
    return TensorDiff(
        name,
        counterpart,
        reference.shape[1:],
        None if math.isinf(sqnr) and sqnr > 0 else finite_sqnr,
        metrics.cosine(expected, values),
        metrics.max_abs_error(expected, values),
        _range(expected),
        _range(values),
        max(0.0, floor - min(finite_sqnr, floor)),
    )


def _range(array: Array) -> tuple[float, float]:
    values = array.astype(np.float64)
    return float(values.min()), float(values.max())
