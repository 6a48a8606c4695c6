"""Labels as people save them, brought into one form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array

# Rows of float32 probabilities add up to 1 within the rounding of as many additions as there are classes.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Labels:
    """Labels in the form in which a metric takes them.

    Attributes:
        values: Class indices (N,) as int64, or targets (N, ...) as float32 or float64.
        metric: The metric in `TASK_METRICS` that they serve: `accuracy` or `mae`.
        note: In which form they were read, where it was not plainly one class index per sample; else empty.
    """

    values: Array
    metric: str
    note: str = ""


def read_labels(labels: Array, count: int, output: str, shape: tuple[int, ...]) -> Labels:
    """Bring labels into one form.

    Class indices may have further axes of size 1, be whole numbers of a float type, or be given as one-hot rows or as
    probabilities. Targets have the shape of the output.

    Args:
        labels: The labels as given.
        count: The number of samples N.
        output: The name of the output that they belong to, for error messages.
        shape: The shape of this output for one sample.

    Returns:
        The labels.

    Raises:
        InputError: They are in none of these forms, or do not fit the output.
    """
    if labels.dtype.kind not in "biuf":
        raise InputError(
            f"labels are {_kind(labels)}; write the classes as numbers, counted from 0 in the order of {output}"
        )
    if labels.dtype.kind == "f" and not np.all(np.isfinite(labels)):
        raise InputError(f"labels contain {'NaN' if np.isnan(labels).any() else 'infinity'}")
    # (N, 1) and (1, N): how data sets and data frames hold one value per sample.
    is_flat = labels.size == max(labels.shape, default=1)
    given = labels.reshape(-1) if is_flat and labels.size == count else labels
    n_labels = labels.size if is_flat and labels.shape[:1] != (count,) else len(labels)
    if n_labels != count:
        raise InputError(f"{n_labels} labels for {count} samples; there must be one label per sample")
    classes = shape[0] if len(shape) == 1 and shape[0] > 1 else None
    if given.ndim == 1 and classes is not None:
        return _class_indices(given, labels, output, classes)
    if classes is not None and labels.shape == (count, classes):
        rows = _class_rows(labels, classes)
        if rows is not None:
            return rows
    if math.prod(given.shape[1:]) == math.prod(shape) and (classes is None or given.dtype.kind == "f"):
        values = given if given.dtype in (np.float32, np.float64) else given.astype(np.float32)
        return Labels(values.reshape(count, *shape), "mae", f"labels are read as targets of the output {output}")
    described = "x".join(map(str, ("N", *shape)))
    accepted = f"one class index per sample, one-hot rows of {classes}, " if classes else ""
    raise InputError(
        f"labels of shape {labels.shape} and type {labels.dtype} do not fit the output {output} of shape {described};"
        f" they may be {accepted}or targets of the output's own shape"
    )


def _kind(labels: Array) -> str:
    return "texts" if labels.dtype.kind in "US" else f"of type {labels.dtype}"


def _class_indices(flat: Array, labels: Array, output: str, classes: int) -> Labels:
    fractions = flat[flat.astype(np.int64) != flat]
    if len(fractions):
        raise InputError(
            f"labels contain {fractions[0]:g}, but {output} has {classes} classes: a class is a whole number"
        )
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"labels run from {low} to {high}, but {output} has {classes} classes, counted from 0 to {classes - 1}"
        )
    forms = [f"of shape {labels.shape}"] if labels.ndim > 1 else []
    forms += [f"of type {labels.dtype}"] if labels.dtype.kind in "bf" else []
    note = f"labels {' and '.join(forms)} are read as one class index per sample" if forms else ""
    return Labels(flat.astype(np.int64), "accuracy", note)


def _class_rows(labels: Array, classes: int) -> Labels | None:
    """Return the class of each row, or None if the rows are neither one-hot nor probabilities."""
    values: NDArray[np.float64] = labels.astype(np.float64)
    if values.min() < 0 or (np.abs(values.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        return None
    one_hot = bool((values.max(axis=1) == 1).all())
    form = "one-hot rows" if one_hot else "probabilities, whose largest is the class,"
    return Labels(np.argmax(values, axis=1), "accuracy", f"labels are read as {form} of {classes} classes")
