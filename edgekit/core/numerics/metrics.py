"""Figures of how far one array is from another, and how good a model is at its task. Pure numpy, float64 inside.

Arrays that are compared have the samples along axis 0: shape (N, ...). The reference comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def _pair(reference: Array, actual: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if reference.shape != actual.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {actual.shape}")
    if reference.size == 0:
        raise ValueError("nothing to compare: the arrays are empty")
    return reference.astype(np.float64), actual.astype(np.float64)


def max_abs_error(reference: Array, actual: Array) -> float:
    """max |r - a|."""
    r, a = _pair(reference, actual)
    return float(np.max(np.abs(r - a)))


def mean_abs_error(reference: Array, actual: Array) -> float:
    """mean |r - a|."""
    r, a = _pair(reference, actual)
    return float(np.mean(np.abs(r - a)))


def rmse(reference: Array, actual: Array) -> float:
    """sqrt(mean (r - a)^2)."""
    r, a = _pair(reference, actual)
    return float(np.sqrt(np.mean((r - a) ** 2)))


def sqnr_db(reference: Array, actual: Array) -> float:
    """Signal to quantization noise ratio, 10 * log10(sum r^2 / sum (r - a)^2), in dB.

    Infinite when the arrays are equal; minus infinite when the reference is all zero and the other is not.
    """
    r, a = _pair(reference, actual)
    noise, signal = float(np.sum((r - a) ** 2)), float(np.sum(r**2))
    if noise == 0.0:
        return float("inf")
    return float("-inf") if signal == 0.0 else float(10 * np.log10(signal / noise))


def cosine(reference: Array, actual: Array) -> float:
    """sum(r * a) / (|r| * |a|) over all elements. Two zero arrays are alike: 1; one zero array: 0."""
    r, a = _pair(reference, actual)
    norms = float(np.linalg.norm(r.ravel()) * np.linalg.norm(a.ravel()))
    if norms == 0.0:
        return 1.0 if np.array_equal(r, a) else 0.0
    return float(np.clip(np.dot(r.ravel(), a.ravel()) / norms, -1.0, 1.0))


def worst_sample(reference: Array, actual: Array) -> tuple[int, float]:
    """The index along axis 0 of the sample with the largest absolute error, and that error."""
    r, a = _pair(reference, actual)
    errors = np.abs(r - a).reshape(len(r), -1).max(axis=1)
    index = int(np.argmax(errors))
    return index, float(errors[index])


def top1_agreement(reference: Array, actual: Array) -> float:
    """Share of samples whose largest output stands at the same index. Shapes (N, classes)."""
    r, a = _pair(reference, actual)
    return float(np.mean(np.argmax(r, axis=-1) == np.argmax(a, axis=-1)))


def accuracy(outputs: Array, labels: Array) -> float:
    """Share of samples whose largest output stands at the label. Shapes (N, classes) and (N,)."""
    return float(np.mean(np.argmax(outputs, axis=-1) == labels))


def mae(outputs: Array, labels: Array) -> float:
    """Mean absolute error of a regression. Shapes (N, 1) or (N,), and the same number of labels."""
    return mean_abs_error(labels.reshape(-1), outputs.reshape(-1))


def roc_auc(scores: Array, labels: Array) -> float:
    """Area under the ROC curve: the chance that a positive (label 1) scores above a negative (label 0), ties counting
    half. Shapes (N,) and (N,). NaN when a score is not finite.

    By ranks, (R - p (p + 1) / 2) / (p n), where R is the sum of the p positives' ranks among all p + n scores: the
    Mann-Whitney U statistic (Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143,
    1982). Raises ValueError when there are no positives or no negatives.
    """
    positive = labels.astype(bool)
    positives, negatives = int(np.sum(positive)), int(np.sum(~positive))
    if not positives or not negatives:
        raise ValueError(f"{positives} positives and {negatives} negatives: an AUC needs some of both")
    if not np.isfinite(scores).all():
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share the mean of their ranks
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reconstruction_auc(outputs: Array, labels: Array, inputs: Array) -> float:
    """ROC AUC of the mean squared reconstruction error of each sample: outputs and inputs (N, ...), labels (N,) that
    are 0 for normal samples and 1 for anomalies."""
    return roc_auc(_reconstruction_error(outputs, inputs), labels)


def _reconstruction_error(outputs: Array, inputs: Array) -> Array:
    """The mean squared error of each sample."""
    r, a = _pair(inputs, outputs)
    error: Array = np.mean((r - a).reshape(len(r), -1) ** 2, axis=1)
    return error


def _right(outputs: Array, labels: Array) -> Array:
    """Whether each sample is put into its class."""
    right: Array = np.argmax(outputs, axis=-1) == labels
    return right


def _error(outputs: Array, labels: Array) -> Array:
    """The absolute error of each sample."""
    r, a = _pair(labels.reshape(len(labels), -1), outputs.reshape(len(labels), -1))
    error: Array = np.abs(r - a).mean(axis=1)
    return error


@dataclass(frozen=True)
class TaskMetric:
    """A task metric: how to compute it, and which way is better. `higher_is_better` sets the sign of drift.

    `compute` takes outputs (N, ...), labels (N,) and inputs (N, ...) of the test set, in this order: an anomaly
    detector is judged by how well its outputs reconstruct its inputs. `per_sample` gives, for outputs and labels, one
    value a sample whose mean is the metric. Where there is none (AUC), `scores` gives, for outputs and inputs, one
    value a sample, and `of_scores` the metric for scores and labels, so that a bootstrap need not start over.
    """

    name: str
    compute: Callable[[Array, Array, Array], float]
    higher_is_better: bool
    is_share: bool  # shares are printed in percent, and their drift in points
    per_sample: Callable[[Array, Array], Array] | None = None
    scores: Callable[[Array, Array], Array] | None = None
    of_scores: Callable[[Array, Array], float] | None = None

    def drop(self, source: float, artifact: float) -> float:
        """How much worse the artifact is: positive when it lost, in the metric's own unit."""
        return source - artifact if self.higher_is_better else artifact - source


TASK_METRICS = {
    metric.name: metric
    for metric in (
        TaskMetric("accuracy", lambda outputs, labels, _inputs: accuracy(outputs, labels), True, True, _right),
        TaskMetric("mae", lambda outputs, labels, _inputs: mae(outputs, labels), False, False, _error),
        TaskMetric("auc", reconstruction_auc, True, False, None, _reconstruction_error, roc_auc),
    )
}


def format_metric(name: str | None, value: float | None) -> str:
    """Shares in percent, others with four digits; a dash where nothing was judged."""
    if name is None or value is None:
        return "-"
    return f"{100 * value:.2f} %" if TASK_METRICS[name].is_share else f"{value:.4f}"
