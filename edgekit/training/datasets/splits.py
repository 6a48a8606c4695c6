"""Disjoint training, calibration, golden and test sets of reference models.

A user's samples are split by `edgekit.core.numerics.sample_order`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array


@dataclass(frozen=True)
class Splits:
    """A data set in four disjoint parts, each with inputs `(N, ...)`, channels last, and labels `(N,)`.

    Attributes:
        name: Name of the data set.
        sha256: Digest of the data, see `digest`.
        licence: Licence of the data.
        train_inputs: Inputs that the weights are trained on.
        train_labels: Their labels.
        calibration_inputs: Inputs that determine quantization ranges.
        calibration_labels: Their labels.
        golden_inputs: Inputs on which an artifact is compared with its source.
        golden_labels: Their labels.
        test_inputs: Inputs that measure the task metric.
        test_labels: Their labels.
        train_groups: Group number of each training sample, such as the original of augmented copies; a group is never
            divided between training and validation. None if every sample is its own group.
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
    """Return the splits of one data set by index.

    Args:
        name: Name of the data set.
        sha256: Digest of the data.
        licence: Licence of the data.
        inputs: All inputs `(N, ...)`.
        labels: All labels `(N,)`.
        parts: Indices of golden, calibration, test and training samples, in this order.

    Returns:
        The four parts.
    """
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
    """Return the sha256 over dtypes, shapes and values of the arrays, independent of their memory layout."""
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(f"{array.dtype.str} {array.shape}\n".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def split_indices(count: int, sizes: tuple[int, ...], seed: int, labels: Array | None = None) -> list[Array]:
    """Split `range(count)` into shuffled, disjoint index sets.

    Args:
        count: Number of samples.
        sizes: Sizes of the sets that are held out.
        seed: Seed of the shuffle.
        labels: Labels `(count,)`; if given, every set contains each class in its overall proportion, up to rounding.

    Returns:
        One set per size, followed by the remaining indices.

    Raises:
        InputError: No sample would remain.
    """
    if sum(sizes) >= count:
        raise InputError(f"the data has {count} samples, of which {sum(sizes)} are held out: none is left to train on")
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        order = order[_interleave_classes(labels[order])]
    ends = np.cumsum(sizes)
    return [*np.split(order[: ends[-1]], ends[:-1]), order[ends[-1] :]]


def hold_out(splits: Splits, share: float, *, stratify: bool) -> tuple[Array, Array]:
    """Split the training set into samples for training and samples for validation; groups stay whole.

    Args:
        splits: The data set.
        share: Share of the groups held out for validation, at least one group.
        stratify: Whether both sets contain each class in its overall proportion.

    Returns:
        Indices into the training set: training samples and validation samples.

    Raises:
        InputError: No group would remain to train on.
    """
    count = len(splits.train_inputs)
    groups = np.arange(count) if splits.train_groups is None else splits.train_groups
    names, first, group_of_sample = np.unique(groups, return_index=True, return_inverse=True)
    labels = splits.train_labels[first] if stratify else None
    held_groups = split_indices(len(names), (max(1, round(share * len(names))),), 0, labels)[0]
    held = np.isin(group_of_sample, held_groups)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _interleave_classes(labels: Array) -> Array:
    """Return an order in which every prefix contains the classes in nearly their overall proportion."""
    position = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(position, kind="stable")
