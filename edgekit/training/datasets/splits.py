"""Train, calibration, golden and test: four disjoint sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array


@dataclass(frozen=True)
class Splits:
    """Inputs of shape (N, ...), channels last, and labels of shape (N,), in four disjoint sets.

    `train` fits the weights, `calibration` sets the ranges of a quantization, `golden` proves that an artifact computes
    what its source computed, `test` judges accuracy. `name`, `sha256` and `licence` say what data it is.
    `train_groups` numbers the training samples where some are copies of one another, or of one person: a group is never
    divided between what is trained on and what judges the epochs.
    """

    name: str
    sha256: str
    licence: str
    train_inputs: Array
    train_labels: Array
    calibration_inputs: Array
    calibration_labels: Array
    golden_inputs: Array
    golden_labels: Array
    test_inputs: Array
    test_labels: Array
    train_groups: Array | None = None


def assemble(name: str, sha256: str, licence: str, inputs: Array, labels: Array, parts: Sequence[Array]) -> Splits:
    """The splits of one array of inputs and one of labels by the indices of golden, calibration, test and train."""
    golden, calibration, test, train = parts
    return Splits(
        name=name,
        sha256=sha256,
        licence=licence,
        train_inputs=inputs[train],
        train_labels=labels[train],
        calibration_inputs=inputs[calibration],
        calibration_labels=labels[calibration],
        golden_inputs=inputs[golden],
        golden_labels=labels[golden],
        test_inputs=inputs[test],
        test_labels=labels[test],
    )


def digest(*arrays: Array) -> str:
    """sha256 over dtypes, shapes and values."""
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(f"{array.dtype.str} {array.shape}\n".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def cut(count: int, sizes: tuple[int, ...], seed: int, labels: Array | None = None) -> list[Array]:
    """Disjoint index sets of the given sizes out of `count`, and last what is left, shuffled by the seed.

    With labels, each set has every class in the proportion of the whole, as nearly as counts allow. Raises InputError
    when less than one sample would be left to train on.
    """
    if sum(sizes) >= count:
        raise InputError(
            f"the data has {count} samples; {sum(sizes)} of them are held out, and none is left to train on"
        )
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        order = order[_interleaved(labels[order])]
    ends = np.cumsum(sizes)
    return [*np.split(order[: ends[-1]], ends[:-1]), order[ends[-1] :]]


def hold_out(splits: Splits, share: float, *, stratify: bool) -> tuple[Array, Array]:
    """Indices into the training set: what is trained on, and the share of it that judges the epochs.

    Groups stay whole. With `stratify` the classes keep their proportions. Raises InputError when nothing would be left.
    """
    count = len(splits.train_inputs)
    groups = np.arange(count) if splits.train_groups is None else splits.train_groups
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    labels = splits.train_labels[first] if stratify else None
    chosen = cut(len(names), (max(1, round(share * len(names))),), 0, labels)[0]
    held = np.isin(member, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _interleaved(labels: Array) -> Array:
    """An order in which every prefix has the classes in nearly the proportion of the whole."""
    place = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")
