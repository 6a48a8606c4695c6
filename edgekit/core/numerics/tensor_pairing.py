"""Which tensors of two models belong together: by name, else by shape and order, across layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation, inverse_permutation
from edgekit.core.values.specs import Dim, TensorSpec

_TO_LAST: Permutation = (0, 2, 3, 1)
_TO_FIRST: Permutation = (0, 3, 1, 2)


@dataclass(frozen=True)
class TensorPair:
    """A tensor of the one model and one of the other. `order` permutes the first one's dimensions into the second's,
    `reshaped` says that they differ in dimensions of one; `by` is `name`, `shape`, or `you`."""

    first: TensorSpec
    second: TensorSpec
    by: str
    order: Permutation | None = None
    reshaped: bool = False

    @property
    def how(self) -> str:
        """In words, as it is printed."""
        words = {"name": "same name", "shape": "shape and order", "you": "as you said"}[self.by]
        moved = "" if self.order is None else f", dimensions permuted {self.order}"
        return words + moved + (", reshaped" if self.reshaped else "")

    @property
    def reverse(self) -> TensorPair:
        """The same pair with the second one first."""
        order = None if self.order is None else inverse_permutation(self.order)
        return TensorPair(self.second, self.first, self.by, order, self.reshaped)

    def forward(self, array: Array) -> Array:
        """The first one's samples, shape (N, ...), as the second has them."""
        moved = array if self.order is None else np.ascontiguousarray(np.transpose(array, self.order))
        if not self.reshaped:
            return moved
        shape = [dim if isinstance(dim, int) else -1 for dim in self.second.shape[1:]]
        return moved.reshape(len(moved), *shape)


def match_axes(first: TensorSpec, second: TensorSpec) -> tuple[Permutation | None, bool] | None:
    """How the first one's samples become the second's: (permutation, reshaped); None when they cannot.

    The first dimension is the batch, which may differ.
    """
    one, other = first.shape[1:], second.shape[1:]
    if _alike(one, other):
        return None, False
    if len(one) == len(other) == 3:
        for order in (_TO_LAST, _TO_FIRST):
            if _alike(tuple(first.shape[index] for index in order[1:]), other):
                return order, False
    if all(isinstance(dim, int) for dim in (*one, *other)) and _squeezed(one) == _squeezed(other):
        return None, True
    return None


def _alike(one: Sequence[Dim], other: Sequence[Dim]) -> bool:
    return len(one) == len(other) and all(
        a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(one, other, strict=True)
    )


def _squeezed(shape: Sequence[Dim]) -> list[Dim]:
    return [dim for dim in shape if dim != 1]


def pair_tensors(
    firsts: Sequence[TensorSpec], seconds: Sequence[TensorSpec], forced: Mapping[str, str]
) -> tuple[tuple[TensorPair, ...], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The pairs in the order of the first model, and the tensors that are left on either side.

    `forced` maps names of the first to names of the second; they come first, then equal names, then equal shapes in
    order. Raises InputError when forced ones do not fit each other.
    """
    by_name = {spec.name: spec for spec in seconds}
    found: dict[str, TensorPair] = {}
    taken: set[str] = set()

    def take(first: TensorSpec, second: TensorSpec, by: str) -> bool:
        how = match_axes(first, second)
        if how is None:
            return False
        found[first.name] = TensorPair(first, second, by, *how)
        taken.add(second.name)
        return True

    for first in firsts:
        if first.name in forced and forced[first.name] in by_name:
            second = by_name[forced[first.name]]
            if not take(first, second, "you"):
                raise InputError(f"--pair {first.name}={second.name}: {first} and {second} do not fit each other")
    for first in firsts:
        if first.name not in found and first.name in by_name and first.name not in taken:
            take(first, by_name[first.name], "name")
    for first in firsts:
        if first.name not in found:
            any(take(first, second, "shape") for second in seconds if second.name not in taken)
    pairs = tuple(found[first.name] for first in firsts if first.name in found)
    return (
        pairs,
        tuple(first for first in firsts if first.name not in found),
        tuple(second for second in seconds if second.name not in taken),
    )


def check_forced(forced: Mapping[str, str], firsts: Sequence[TensorSpec], seconds: Sequence[TensorSpec]) -> None:
    """Raises InputError when a name that the user gave is of neither an input nor an output."""
    for side, names, specs in (("first", forced, firsts), ("second", forced.values(), seconds)):
        known = [spec.name for spec in specs]
        for name in names:
            if name not in known:
                raise InputError(f"--pair: the {side} model has no tensor {name}; it has: {', '.join(known)}")
