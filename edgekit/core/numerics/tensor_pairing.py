"""Pairing of the inputs and outputs of two models: by name, else by shape and order, across layouts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation, inverse_permutation
from edgekit.core.values.specs import Dim, TensorSpec

_TO_CHANNELS_LAST: Permutation = (0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
_TO_CHANNELS_FIRST: Permutation = (0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


_METHODS = {
    "name": "same name",
    "shape": "shape and order",
    "values": "their values, which are in another order",
    "you": "set by the user",
}
# The share of the error of the given order below which another order is taken: chance does not reach it.
_CLEARLY_LESS = 0.1
# More permutations than those of so many tensors are not tried; 7! is 5,040.
_MOST_PERMUTED = 7


@dataclass(frozen=True)
class TensorPair:
    """A tensor of the first model and its counterpart in the second.

    Attributes:
        first: Tensor of the first model.
        second: Tensor of the second model.
        by: How they were paired: `name`, `shape`, `values` (of equal shapes, against the order) or `you` (by the user).
        order: Permutation from the first one's dimensions to the second's; None where they have the same order.
        reshaped: Whether they differ in dimensions of size 1.
    """

    first: TensorSpec
    second: TensorSpec
    by: str
    order: Permutation | None = None
    reshaped: bool = False

    @property
    def method(self) -> str:
        """How the tensors were paired and converted, for output to the user."""
        matched_by = _METHODS[self.by]
        permuted = "" if self.order is None else f", dimensions permuted {self.order}"
        return matched_by + permuted + (", reshaped" if self.reshaped else "")

    @property
    def reverse(self) -> TensorPair:
        """The same pair with both tensors exchanged."""
        order = None if self.order is None else inverse_permutation(self.order)
        return TensorPair(self.second, self.first, self.by, order, self.reshaped)

    def forward(self, array: Array) -> Array:
        """Convert samples of the first tensor to the layout and shape of the second.

        Args:
            array: Samples of the first tensor, shape (N, ...).

        Returns:
            The samples for the second tensor, shape (N, ...).
        """
        permuted = array if self.order is None else np.ascontiguousarray(np.transpose(array, self.order))
        if not self.reshaped:
            return permuted
        shape = [dim if isinstance(dim, int) else -1 for dim in self.second.shape[1:]]
        return permuted.reshape(len(permuted), *shape)


def match_axes(first: TensorSpec, second: TensorSpec) -> tuple[Permutation | None, bool] | None:
    """Find the conversion from the samples of one tensor to those of another.

    Args:
        first: Tensor of the first model, shape (N, ...). The batch N may differ from the second's.
        second: Tensor of the second model, shape (N, ...).

    Returns:
        The permutation of the dimensions (None for the same order) and whether to reshape; None where the shapes are
        incompatible.
    """
    first_dims, second_dims = first.shape[1:], second.shape[1:]
    # The same order comes first: of a square image with as many channels every order fits.
    if _compatible(first_dims, second_dims):
        return None, False
    if len(first_dims) == len(second_dims) == 3:
        for order in (_TO_CHANNELS_LAST, _TO_CHANNELS_FIRST):
            if _compatible(tuple(first.shape[index] for index in order[1:]), second_dims):
                return order, False
    if all(isinstance(dim, int) for dim in (*first_dims, *second_dims)) and _squeeze(first_dims) == _squeeze(
        second_dims
    ):
        return None, True
    return None


def _compatible(first: Sequence[Dim], second: Sequence[Dim]) -> bool:
    # A symbolic dimension can have any size.
    return len(first) == len(second) and all(
        a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(first, second, strict=True)
    )


def _squeeze(shape: Sequence[Dim]) -> list[Dim]:
    return [dim for dim in shape if dim != 1]


def pair_tensors(
    firsts: Sequence[TensorSpec], seconds: Sequence[TensorSpec], forced: Mapping[str, str]
) -> tuple[tuple[TensorPair, ...], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Pair the tensors of two models.

    Pairs that the user set come first, then equal names, then compatible shapes in order.

    Args:
        firsts: Inputs or outputs of the first model.
        seconds: Inputs or outputs of the second model.
        forced: Names of the second model by names of the first, as the user set them.

    Returns:
        The pairs in the order of the first model, the unpaired tensors of the first model, and those of the second.

    Raises:
        InputError: The shapes of a pair that the user set are incompatible.
    """
    by_name = {spec.name: spec for spec in seconds}
    matches: dict[str, TensorPair] = {}
    matched_seconds: set[str] = set()

    def match(first: TensorSpec, second: TensorSpec, by: str) -> bool:
        conversion = match_axes(first, second)
        if conversion is None:
            return False
        matches[first.name] = TensorPair(first, second, by, *conversion)
        matched_seconds.add(second.name)
        return True

    for first in firsts:
        if first.name in forced and forced[first.name] in by_name:
            second = by_name[forced[first.name]]
            if not match(first, second, "you"):
                raise InputError(f"pair {first.name}={second.name}: {first} and {second} have incompatible shapes")
    # All equal names before any shape: otherwise a shape could claim the counterpart of a later name.
    for first in firsts:
        if first.name not in matches and first.name in by_name and first.name not in matched_seconds:
            match(first, by_name[first.name], "name")
    for first in firsts:
        if first.name not in matches:
            any(match(first, second, "shape") for second in seconds if second.name not in matched_seconds)
    pairs = tuple(matches[first.name] for first in firsts if first.name in matches)
    return (
        pairs,
        tuple(first for first in firsts if first.name not in matches),
        tuple(second for second in seconds if second.name not in matched_seconds),
    )


def pair_by_values(
    pairs: Sequence[TensorPair], first: Mapping[str, Array], second: Mapping[str, Array]
) -> tuple[TensorPair, ...]:
    """Pair outputs that only shape and order paired by their values where these tell that the order differs.

    Two outputs of equal shape whose order differs between two files would be called unequal, each against the other.
    Every permutation of the outputs without a common name is tried; one is taken if its largest error is a tenth of
    that of the given order. The error of a pair is that of the values over their size, sqrt(sum (r - a)^2 / sum r^2).

    Args:
        pairs: Pairs of outputs.
        first: Outputs of the first model by name, shape (N, ...).
        second: Outputs of the second model by name, shape (N, ...).

    Returns:
        The pairs in the same order.
    """
    loose = [index for index, pair in enumerate(pairs) if pair.by == "shape"]
    if not 1 < len(loose) <= _MOST_PERMUTED:
        return tuple(pairs)
    options = {
        (row, column): _candidate(pairs[row].first, pairs[column].second, first, second)
        for row in loose
        for column in loose
    }

    def error(order: Sequence[int]) -> float:
        return max(options[row, column][1] for row, column in zip(loose, order, strict=True))

    best = min(itertools.permutations(loose), key=error)
    if not error(best) < _CLEARLY_LESS * error(loose):
        return tuple(pairs)
    chosen = list(pairs)
    for row, column in zip(loose, best, strict=True):
        pair = options[row, column][0]
        if row != column and pair is not None:
            chosen[row] = pair
    return tuple(chosen)


def _candidate(
    first: TensorSpec, second: TensorSpec, firsts: Mapping[str, Array], seconds: Mapping[str, Array]
) -> tuple[TensorPair | None, float]:
    """Return a pair and its relative error; infinity where the two do not fit."""
    conversion = match_axes(first, second)
    if conversion is None:
        return None, math.inf
    pair = TensorPair(first, second, "values", *conversion)
    r, a = pair.forward(firsts[first.name]), seconds[second.name]
    if r.shape != a.shape or not (np.isfinite(r).all() and np.isfinite(a).all()):
        return None, math.inf
    noise = float(np.sum((r.astype(np.float64) - a.astype(np.float64)) ** 2))
    signal = float(np.sum(r.astype(np.float64) ** 2))
    return pair, math.sqrt(noise / signal) if signal else (0.0 if noise == 0 else math.inf)


def check_forced(forced: Mapping[str, str], firsts: Sequence[TensorSpec], seconds: Sequence[TensorSpec]) -> None:
    """Raise an error where the user named a tensor that does not exist.

    Args:
        forced: Names of the second model by names of the first, as the user set them.
        firsts: Inputs and outputs of the first model.
        seconds: Inputs and outputs of the second model.

    Raises:
        InputError: A name is neither an input nor an output of its model; the message lists the names that exist.
    """
    for side, names, specs in (("first", forced, firsts), ("second", forced.values(), seconds)):
        tensor_names = [spec.name for spec in specs]
        for name in names:
            if name not in tensor_names:
                raise InputError(f"pairs: the {side} model has no tensor {name}; it has: {', '.join(tensor_names)}")
