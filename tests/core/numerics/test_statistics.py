"""Intervals, tests and power against exact values and properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.numerics.statistics import (
    bootstrap_drop,
    bootstrap_mean,
    detectable_drop,
    drift_by_class,
    mcnemar_p,
    samples_to_decide,
)


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (10, 0, 2 / 1024), (0, 10, 2 / 1024), (8, 2, 2 * (1 + 10 + 45) / 1024)],
)
def test_mcnemar_is_exact(lost, won, p):
    assert mcnemar_p(lost, won) == pytest.approx(p)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_symmetric_and_a_probability(lost, won):
    assert 0 < mcnemar_p(lost, won) <= 1
    assert mcnemar_p(lost, won) == mcnemar_p(won, lost)


def test_the_interval_of_a_mean_approaches_the_normal_interval():
    differences = np.random.default_rng(0).normal(0.5, 1, 5000)
    interval = bootstrap_mean(differences)
    half = 1.96 * differences.std() / math.sqrt(5000)
    assert interval.low == pytest.approx(differences.mean() - half, abs=0.004)
    assert interval.high == pytest.approx(differences.mean() + half, abs=0.004)


def test_differences_of_zero_have_an_empty_interval():
    assert bootstrap_mean(np.zeros(100)) == bootstrap_mean(np.zeros(50))


def test_both_bootstraps_agree_on_a_mean():
    differences = np.random.default_rng(1).integers(-1, 2, 400).astype(float)
    fast = bootstrap_mean(differences)
    general = bootstrap_drop(lambda index: (differences[index].mean(), 0.0), 400, lambda a, b: a - b)
    assert fast.low == pytest.approx(general.low, abs=0.01)
    assert fast.high == pytest.approx(general.high, abs=0.01)


def test_the_interval_covers_the_true_value_as_often_as_it_claims():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        interval = bootstrap_mean((rng.random(300) < 0.1).astype(float), resamples=400)
        covered += interval.low <= 0.1 <= interval.high
    assert 175 <= covered <= 200


def test_more_samples_detect_smaller_drops():
    drops = [detectable_drop(count, 0.02) for count in (100, 1000, 10000)]
    assert drops == sorted(drops, reverse=True)
    assert detectable_drop(1000, 0.0) == 0.003


def test_a_drop_closer_to_the_limit_needs_more_samples():
    counts = [samples_to_decide(0.02, drop, 0.02, 1000) for drop in (0.0, 0.01, 0.015, 0.019)]
    assert counts == sorted(counts)


def test_the_class_with_the_largest_drop_comes_first():
    labels = np.array([0, 0, 1, 1, 2, 2])
    source = np.array([True, True, True, True, True, True])
    artifact = np.array([True, True, False, False, True, False])
    drifts = drift_by_class(source, artifact, labels)
    assert [drift.label for drift in drifts] == [1, 2, 0]
    assert [drift.drop for drift in drifts] == [1.0, 0.5, 0.0]
    assert [drift.samples for drift in drifts] == [2, 2, 2]
