"""What a test set can say about a change of a task metric: intervals, tests, power. numpy only, seeded.

All functions take one value a sample for source and artifact, in the same order: they are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.numerics.metrics import Array

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 20260101
_Z_95, _Z_80 = 1.6448536269514722, 0.8416212335729143  # quantiles of the normal distribution at 0.95 and 0.80

Metric = Callable[[NDArray[np.intp]], tuple[float, float]]
"""The metric of source and artifact on the samples with these indices."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def bootstrap_drop(
    metric: Metric, count: int, drop: Callable[[float, float], float], resamples: int = RESAMPLES
) -> Interval:
    """The 95 % percentile interval of the drop, samples drawn with replacement, the same for both models.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. `metric` computes both figures on chosen
    samples, `drop` what they differ by.
    """
    rng = np.random.default_rng(_SEED)
    drops = [drop(*metric(rng.integers(0, count, count))) for _ in range(resamples)]
    return _percentiles(np.asarray(drops))


def bootstrap_mean(differences: Array, resamples: int = RESAMPLES) -> Interval:
    """The same for the mean of one difference a sample, shape (N,), in one matrix multiplication a block."""
    rng = np.random.default_rng(_SEED)
    values = differences.astype(np.float64)
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    return _percentiles(weights @ values / len(values))


def _percentiles(drops: NDArray[np.float64]) -> Interval:
    finite = drops[np.isfinite(drops)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Interval(float(low), float(high))


def mcnemar_p(lost: int, won: int) -> float:
    """The exact two-sided p-value of McNemar's test (Psychometrika 12, 1947) that a classifier neither lost nor won.

    `lost` samples are right in the source and wrong in the artifact, `won` the other way round; those that both get
    right or wrong do not count.
    """
    total = lost + won
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(min(lost, won) + 1))
    return min(1.0, float(2 * tail / 2**total))


def detectable_drop(count: int, variance: float) -> float:
    """The smallest drop that `count` samples show with a power of 80 % (one-sided test at 5 %).

    `variance` is that of the difference a sample; without any, the rule of three bounds it: 3 / N.
    """
    return max((_Z_95 + _Z_80) * math.sqrt(variance / count), 3 / count)


def samples_to_decide(limit: float, drop: float, variance: float, count: int) -> int:
    """How many samples would put the limit outside the interval, were the drop what it was measured as."""
    distance = max(abs(limit - drop), 1 / (2 * count))
    spread = max(variance, 1 / count)  # no change among N samples is no proof that there is none
    return math.ceil(((1.959963984540054 * math.sqrt(spread)) / distance) ** 2)


@dataclass(frozen=True)
class ClassDrift:
    """One class of a classifier: its share of right answers in source and artifact, among `samples` of that class."""

    label: int
    samples: int
    source: float
    artifact: float

    @property
    def drop(self) -> float:
        """How much worse the artifact is at it."""
        return self.source - self.artifact


def drift_by_class(
    source_right: NDArray[np.bool_], artifact_right: NDArray[np.bool_], labels: Array
) -> tuple[ClassDrift, ...]:
    """The drift of each class, the one that suffers most first."""
    found = []
    for label in np.unique(labels):
        members = labels == label
        found.append(
            ClassDrift(
                int(label),
                int(members.sum()),
                float(source_right[members].mean()),
                float(artifact_right[members].mean()),
            )
        )
    return tuple(sorted(found, key=lambda item: (-item.drop, item.label)))
