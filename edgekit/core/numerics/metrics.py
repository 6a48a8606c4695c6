"""Distances between arrays and task metrics, computed in float64 with numpy alone.

Compared arrays have their samples along axis 0, shape (N, ...); the reference is the first argument. All distances
raise ValueError where the arrays differ in shape or are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def _as_float64(reference: Array, actual: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Broadcasting would hide a wrong shape: (N, 1) against (N,) yields N * N differences.
    if reference.shape != actual.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {actual.shape}")
    if reference.size == 0:
        raise ValueError("nothing to compare: the arrays are empty")
    # float64, because differences of int8 wrap around and float32 sums over millions of elements lose digits.
    return reference.astype(np.float64), actual.astype(np.float64)


def max_abs_error(reference: Array, actual: Array) -> float:
    """Compute the largest absolute difference, max |r - a|.

    Args:
        reference: Expected values, any shape.
        actual: Values to compare, same shape.

    Returns:
        The difference in the unit of the arrays.
    """
    r, a = _as_float64(reference, actual)
    return float(np.max(np.abs(r - a)))


def mean_abs_error(reference: Array, actual: Array) -> float:
    """Compute the mean absolute difference, mean |r - a|.

    Args:
        reference: Expected values, any shape.
        actual: Values to compare, same shape.

    Returns:
        The difference in the unit of the arrays.
    """
    r, a = _as_float64(reference, actual)
    return float(np.mean(np.abs(r - a)))


def rmse(reference: Array, actual: Array) -> float:
    """Compute the root mean square difference, sqrt(mean (r - a)^2).

    Args:
        reference: Expected values, any shape.
        actual: Values to compare, same shape.

    Returns:
        The difference in the unit of the arrays.
    """
    r, a = _as_float64(reference, actual)
    return float(np.sqrt(np.mean((r - a) ** 2)))


def sqnr_db(reference: Array, actual: Array) -> float:
    """Compute the signal to quantization noise ratio, 10 * log10(sum r^2 / sum (r - a)^2).

    Args:
        reference: Expected values, any shape.
        actual: Values to compare, same shape.

    Returns:
        The ratio in dB: infinity for equal arrays, minus infinity where only the reference is all zeros.
    """
    r, a = _as_float64(reference, actual)
    noise, signal = float(np.sum((r - a) ** 2)), float(np.sum(r**2))
    if noise == 0.0:
        return float("inf")
    return float("-inf") if signal == 0.0 else float(10 * np.log10(signal / noise))


def cosine(reference: Array, actual: Array) -> float:
    """Compute the cosine similarity over all elements, sum(r * a) / (|r| * |a|).

    Args:
        reference: Expected values, any shape.
        actual: Values to compare, same shape.

    Returns:
        The similarity in [-1, 1]: 1 for two arrays of zeros, 0 where only one is all zeros.
    """
    r, a = _as_float64(reference, actual)
    norms = float(np.linalg.norm(r.ravel()) * np.linalg.norm(a.ravel()))
    if norms == 0.0:
        return 1.0 if np.array_equal(r, a) else 0.0
    # Rounding can push the quotient past 1 by an ulp.
    return float(np.clip(np.dot(r.ravel(), a.ravel()) / norms, -1.0, 1.0))


def worst_sample(reference: Array, actual: Array) -> tuple[int, float]:
    """Find the sample with the largest absolute difference.

    Args:
        reference: Expected values, shape (N, ...).
        actual: Values to compare, same shape.

    Returns:
        The index along axis 0 and its largest absolute difference; the first of several equal ones.
    """
    r, a = _as_float64(reference, actual)
    errors = np.abs(r - a).reshape(len(r), -1).max(axis=1)
    index = int(np.argmax(errors))
    return index, float(errors[index])


def top1_agreement(reference: Array, actual: Array) -> float:
    """Compute the share of samples for which both arrays have the same top class.

    Args:
        reference: Expected scores, shape (N, classes).
        actual: Scores to compare, same shape.

    Returns:
        The share in [0, 1].
    """
    r, a = _as_float64(reference, actual)
    return float(np.mean(np.argmax(r, axis=-1) == np.argmax(a, axis=-1)))


def agreement(reference: Array, actual: Array) -> float:
    """Compute the share of equal elements, of class ids, masks or indices.

    Args:
        reference: Expected integers or booleans, any shape.
        actual: Values to compare, same shape.

    Returns:
        The share in [0, 1].
    """
    r, a = _as_float64(reference, actual)
    return float(np.mean(r == a))


def class_ious(reference: Array, actual: Array) -> dict[int, float]:
    """Compute the intersection over union of each class, |r = c and a = c| / |r = c or a = c|.

    Args:
        reference: Expected class ids or a mask, any shape.
        actual: Values to compare, same shape.

    Returns:
        The IoU in [0, 1] by class that the reference has, in order.
    """
    r, a = _as_float64(reference, actual)
    values, counts = np.unique(r, return_counts=True)
    hits = np.unique(r[r == a], return_counts=True)
    others = np.unique(a, return_counts=True)
    hit, other = (dict(zip(*(part.tolist() for part in pair), strict=True)) for pair in (hits, others))
    return {
        int(value): hit.get(value, 0) / (count + other.get(value, 0) - hit.get(value, 0))
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }


def accuracy(outputs: Array, labels: Array) -> float:
    """Compute the share of samples whose top class is the label.

    Args:
        outputs: Scores, shape (N, classes).
        labels: Class indices, shape (N,).

    Returns:
        The share in [0, 1].
    """
    return float(np.mean(np.argmax(outputs, axis=-1) == labels))


def mae(outputs: Array, labels: Array) -> float:
    """Compute the mean absolute error of a regression.

    Args:
        outputs: Predictions, shape (N, 1) or (N,).
        labels: Targets, shape (N, 1) or (N,).

    Returns:
        The error in the unit of the labels.
    """
    # Flattened, since outputs (N, 1) and labels (N,) have to be compared element by element.
    return mean_abs_error(labels.reshape(-1), outputs.reshape(-1))


def roc_auc(scores: Array, labels: Array) -> float:
    """Compute the area under the ROC curve.

    This is the probability that a positive has a higher score than a negative, where ties count half. It is computed
    from ranks as (R - p (p + 1) / 2) / (p n), with R the sum of the ranks of the p positives among all p + n scores:
    the Mann-Whitney U statistic (Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143, 1982).

    Args:
        scores: Scores, shape (N,).
        labels: 1 for positives and 0 for negatives, shape (N,).

    Returns:
        The area in [0, 1]; NaN where a score is not finite.

    Raises:
        ValueError: There are no positives or no negatives.
    """
    positive = labels.astype(bool)
    positives, negatives = int(np.sum(positive)), int(np.sum(~positive))
    if not positives or not negatives:
        raise ValueError(f"AUC needs positive and negative labels (got {positives} positive and {negatives} negative)")
    if not np.isfinite(scores).all():
        return float("nan")
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]  # equal scores share the mean of their ranks
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reconstruction_auc(outputs: Array, labels: Array, inputs: Array) -> float:
    """Compute the ROC AUC of an anomaly detector that scores samples by their mean squared reconstruction error.

    Args:
        outputs: Reconstructions, shape (N, ...).
        labels: 0 for normal samples and 1 for anomalies, shape (N,).
        inputs: The inputs that were reconstructed, shape (N, ...).

    Returns:
        The area in [0, 1]; NaN where an output is not finite.

    Raises:
        ValueError: There are no anomalies or no normal samples.
    """
    return roc_auc(_reconstruction_errors(outputs, inputs), labels)


def _reconstruction_errors(outputs: Array, inputs: Array) -> Array:
    """Return the mean squared error of each sample, shape (N,)."""
    r, a = _as_float64(inputs, outputs)
    errors: Array = np.mean((r - a).reshape(len(r), -1) ** 2, axis=1)
    return errors


def _is_correct(outputs: Array, labels: Array) -> Array:
    """Return for each sample whether the top class is the label, shape (N,)."""
    correct: Array = np.argmax(outputs, axis=-1) == labels
    return correct


def _absolute_errors(outputs: Array, labels: Array) -> Array:
    """Return the mean absolute error of each sample, shape (N,)."""
    r, a = _as_float64(labels.reshape(len(labels), -1), outputs.reshape(len(labels), -1))
    errors: Array = np.abs(r - a).mean(axis=1)
    return errors


@dataclass(frozen=True)
class TaskMetric:
    """A metric of how well a model solves its task.

    Attributes:
        name: Name of the metric in model.toml.
        compute: The metric of outputs (N, ...), labels (N,) and inputs (N, ...) of a test set, in this order. Anomaly
            detectors need the inputs, which their outputs reconstruct.
        higher_is_better: Determines the sign of drift.
        is_share: Whether values are printed in percent and drift in percentage points.
        per_sample: Values (N,) of outputs and labels, whose mean is the metric; None where it is not a mean (AUC).
        scores: Where `per_sample` is None, values (N,) of outputs and inputs that a bootstrap resamples.
        of_scores: Where `per_sample` is None, the metric of such scores and labels.
    """

    name: str
    compute: Callable[[Array, Array, Array], float]
    higher_is_better: bool
    is_share: bool
    per_sample: Callable[[Array, Array], Array] | None = None
    scores: Callable[[Array, Array], Array] | None = None
    of_scores: Callable[[Array, Array], float] | None = None

    def drop(self, source: float, artifact: float) -> float:
        """Compute by how much the artifact is worse than its source.

        Args:
            source: The metric of the source model.
            artifact: The metric of the artifact.

        Returns:
            The difference in the unit of the metric; positive where the artifact is worse.
        """
        return source - artifact if self.higher_is_better else artifact - source


TASK_METRICS = {
    metric.name: metric
    for metric in (
        TaskMetric("accuracy", lambda outputs, labels, _inputs: accuracy(outputs, labels), True, True, _is_correct),
        TaskMetric("mae", lambda outputs, labels, _inputs: mae(outputs, labels), False, False, _absolute_errors),
        TaskMetric("auc", reconstruction_auc, True, False, None, _reconstruction_errors, roc_auc),
    )
}


def format_metric(name: str | None, value: float | None) -> str:
    """Format the value of a task metric.

    Args:
        name: Name of the metric, or None where the model has none.
        value: The value, or None where it was not measured.

    Returns:
        A percentage for shares, a number with four decimals for other metrics, `-` where there is no value.
    """
    if name is None or value is None:
        return "-"
    return f"{100 * value:.2f} %" if TASK_METRICS[name].is_share else f"{value:.4f}"
