"""A linter for calibration samples: what quantizers accept in silence and a device pays for in accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.core.numerics.metrics import Array

FEW = 32
_MUCH_WIDER, _MUCH_NARROWER = 1.5, 0.5  # of the width of the model's own data
_MANY_COPIES = 0.1  # share of samples that are copies of others


@dataclass(frozen=True)
class CalibrationFinding:
    """One thing that is wrong: its name, and a sentence with the figure."""

    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


def lint(
    inputs: Mapping[str, Array],
    reference: Mapping[str, Array],
    labels: Array | None = None,
    known_labels: Array | None = None,
) -> tuple[CalibrationFinding, ...]:
    """What is wrong with calibration inputs by name, shape (N, ...), beside `reference` inputs of the model's own data.

    Findings: `few-samples`, `layout`, `constant`, `duplicates`, `not-normalised`, `range`, and `labels` where both
    labels are at hand.
    """
    found: list[CalibrationFinding] = []
    for name, array in inputs.items():
        found += _of_input(name, array, reference[name])
    if labels is not None and known_labels is not None:
        found += _of_labels(labels, known_labels)
    return tuple(found)


def _of_input(name: str, array: Array, reference: Array) -> list[CalibrationFinding]:
    if array.shape[1:] != reference.shape[1:]:
        moved = sorted(array.shape[1:]) == sorted(reference.shape[1:])
        what = "the same dimensions in another order" if moved else "another shape"
        return [
            CalibrationFinding(
                "layout", f"{name} has {what}: {array.shape[1:]} where the model takes {reference.shape[1:]}"
            )
        ]
    found = []
    if len(array) < FEW:
        found.append(
            CalibrationFinding("few-samples", f"{name} has {len(array)} samples; ranges from fewer than {FEW} are luck")
        )
    flat = array.reshape(len(array), -1)
    constant = int(np.sum(np.all(flat == flat[:, :1], axis=1))) if flat.shape[1] > 1 else 0
    if constant:
        found.append(
            CalibrationFinding("constant", f"{constant} of {len(array)} samples of {name} hold one value throughout")
        )
    copies = len(array) - len(np.unique(flat, axis=0))
    if copies > _MANY_COPIES * len(array):
        found.append(
            CalibrationFinding("duplicates", f"{copies} of {len(array)} samples of {name} are copies of others")
        )
    return [*found, *_of_range(name, array, reference)]


def _of_range(name: str, array: Array, reference: Array) -> list[CalibrationFinding]:
    low, high = float(array.min()), float(array.max())
    known_low, known_high = float(reference.min()), float(reference.max())
    width = known_high - known_low
    where = f"{name} spans {low:.4g}..{high:.4g} where the model's own data spans {known_low:.4g}..{known_high:.4g}"
    if width <= 0:
        return []
    if high - low > 16 * width:
        return [CalibrationFinding("not-normalised", f"{where}; it looks as if it was never scaled")]
    outside = max(known_low - low, high - known_high) > (_MUCH_WIDER - 1) * width
    if outside or high - low < _MUCH_NARROWER * width:
        return [CalibrationFinding("range", where)]
    return []


def _of_labels(labels: Array, known_labels: Array) -> list[CalibrationFinding]:
    """Classes that no sample stands for; only where the labels are classes."""
    if not np.issubdtype(known_labels.dtype, np.integer):
        return []
    missing = sorted({int(label) for label in np.unique(known_labels)} - {int(label) for label in np.unique(labels)})
    if not missing:
        return []
    listed = ", ".join(map(str, missing))
    return [CalibrationFinding("labels", f"{len(missing)} classes are not among the samples: {listed}")]
