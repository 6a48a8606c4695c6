"""Confidence intervals, significance tests and power for the change of a task metric on a test set.

Source and artifact are evaluated on the same samples in the same order, so all methods are paired. Random numbers are
seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.numerics.metrics import Array
from edgekit.core.values.typed_json import Count, Share

# Efron and Tibshirani (1993) recommend 1000 resamples or more for percentile intervals.
RESAMPLES = 2000
CONFIDENCE = 0.95
# Any fixed value will do: the same outputs must always give the same interval.
_SEED = 20260101
# Quantiles of the standard normal distribution at 0.95 (one-sided 5 % test) and 0.80 (power).
_Z_95, _Z_80 = 1.6448536269514722, 0.8416212335729143
# Its quantile at 0.975, for a two-sided interval of 95 %.
_Z_975 = 1.959963984540054

# Computes the metric of source and artifact on the samples with these indices.
PairedMetric = Callable[[NDArray[np.intp]], tuple[float, float]]


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def bootstrap_drop(
    metric: PairedMetric, count: int, drop: Callable[[float, float], float], resamples: int = RESAMPLES
) -> Interval:
    """Compute the 95 % bootstrap percentile interval of the drop of any metric.

    Samples are drawn with replacement, the same ones for both models (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13).

    Args:
        metric: Computes the metric of source and artifact on the samples with the given indices.
        count: Number of samples.
        drop: Computes by how much the artifact is worse, from both metrics.
        resamples: Number of bootstrap samples.

    Returns:
        The interval in the unit of the metric. Resamples without a finite metric are ignored.
    """
    rng = np.random.default_rng(_SEED)
    drops = [drop(*metric(rng.integers(0, count, count))) for _ in range(resamples)]
    return _percentiles(np.asarray(drops))


def bootstrap_mean(differences: Array, resamples: int = RESAMPLES) -> Interval:
    """Compute the 95 % bootstrap percentile interval of a mean.

    Equivalent to `bootstrap_drop`, but much faster: one matrix multiplication computes all resampled means.

    Args:
        differences: One value for each sample, shape (N,).
        resamples: Number of bootstrap samples.

    Returns:
        The interval in the unit of the differences.
    """
    rng = np.random.default_rng(_SEED)
    values = differences.astype(np.float64)
    # How often each sample is drawn is multinomial; shape (resamples, N).
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    return _percentiles(weights @ values / len(values))


def _percentiles(drops: NDArray[np.float64]) -> Interval:
    # A resample can lack a class that the metric needs (AUC): its value is NaN.
    finite = drops[np.isfinite(drops)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Interval(float(low), float(high))


def mcnemar_p(lost: int, won: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test (Psychometrika 12, 1947).

    Under the null hypothesis, each sample that only one of the models classifies correctly belongs to either of them
    with probability 1/2, so `lost` follows a binomial distribution.

    Args:
        lost: Number of samples that only the source classifies correctly.
        won: Number of samples that only the artifact classifies correctly.

    Returns:
        The p-value in (0, 1]; 1 where both numbers are 0.
    """
    total = lost + won
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(min(lost, won) + 1))
    # Twice the smaller tail counts the middle value twice where lost == won.
    return min(1.0, float(2 * tail / 2**total))


def detectable_drop(count: int, variance: float) -> float:
    """Compute the smallest drop that a test set detects with a power of 80 % in a one-sided test at 5 %.

    (z_0.95 + z_0.80) * sqrt(variance / N), the sample-size formula of a paired z-test solved for the effect.

    Args:
        count: Number of samples N.
        variance: Variance of the difference of one sample.

    Returns:
        The drop in the unit of the metric, at least 3 / N.
    """
    # Rule of three (Hanley and Lippman-Hand, JAMA 249, 1983): an event that N samples never show can still have a rate
    # of up to 3 / N at 95 % confidence. It matters where no sample differs, so that the variance is 0.
    return max((_Z_95 + _Z_80) * math.sqrt(variance / count), 3 / count)


def samples_to_decide(limit: float, drop: float, variance: float, count: int) -> int:
    """Compute how many samples would put a limit outside the 95 % interval of the drop.

    (z_0.975 * sqrt(variance) / |limit - drop|)^2, assuming that drop and variance stay as measured.

    Args:
        limit: Largest drop that passes.
        drop: Measured drop.
        variance: Variance of the difference of one sample.
        count: Number of samples that were measured.

    Returns:
        The number of samples, rounded up.
    """
    # A drop has steps of 1 / N for shares; half a step keeps the result finite where the drop is equal to the limit.
    distance = max(abs(limit - drop), 1 / (2 * count))
    # No difference among N samples does not prove that there is none: assume one.
    spread = max(variance, 1 / count)
    return math.ceil(((_Z_975 * math.sqrt(spread)) / distance) ** 2)


@dataclass(frozen=True)
class ClassDrift:
    """The accuracy of source and artifact on one class.

    Attributes:
        label: Index of the class.
        samples: Number of test samples with that label.
        source: Share that the source classifies correctly.
        artifact: Share that the artifact classifies correctly.
    """

    label: int
    samples: Count
    source: Share
    artifact: Share

    @property
    def drop(self) -> float:
        """By how much the artifact is worse; negative where it is better."""
        return self.source - self.artifact


def drift_by_class(
    source_right: NDArray[np.bool_], artifact_right: NDArray[np.bool_], labels: Array
) -> tuple[ClassDrift, ...]:
    """Compute the drift of each class.

    Args:
        source_right: For each sample whether the source classifies it correctly, shape (N,).
        artifact_right: The same for the artifact, shape (N,).
        labels: Class indices, shape (N,).

    Returns:
        The classes, largest drop first, then by label.
    """
    drifts = []
    for label in np.unique(labels):
        members = labels == label
        drifts.append(
            ClassDrift(
                int(label),
                int(members.sum()),
                float(source_right[members].mean()),
                float(artifact_right[members].mean()),
            )
        )
    return tuple(sorted(drifts, key=lambda drift: (-drift.drop, drift.label)))
