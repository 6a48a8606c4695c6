"""Metrics against values computed by hand, and properties that hold for any arrays."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.numerics import metrics

SEEDED = settings(derandomize=True, max_examples=150)

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


@st.composite
def pairs(draw):
    """Two float32 arrays of one shape."""
    shape = draw(shapes)
    return tuple(draw(hnp.arrays(np.float32, shape, elements=numbers)) for _ in range(2))


REFERENCE = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
ACTUAL = np.array([[3.0, 2.0], [0.0, 1.0]], np.float32)
PAIRWISE = (
    metrics.max_abs_error,
    metrics.mean_abs_error,
    metrics.rmse,
    metrics.sqnr_db,
    metrics.cosine,
    metrics.worst_sample,
    metrics.top1_agreement,
)


def test_each_distance_follows_its_formula():
    assert metrics.max_abs_error(REFERENCE, ACTUAL) == 2.0
    assert metrics.mean_abs_error(REFERENCE, ACTUAL) == 0.75
    assert metrics.rmse(REFERENCE, ACTUAL) == pytest.approx(math.sqrt(5 / 4))
    assert metrics.sqnr_db(REFERENCE, ACTUAL) == pytest.approx(10 * math.log10(25 / 5))
    assert metrics.cosine(REFERENCE, ACTUAL) == pytest.approx(17 / (5 * math.sqrt(14)))
    assert metrics.worst_sample(REFERENCE, ACTUAL) == (0, 2.0)
    assert metrics.top1_agreement(REFERENCE, ACTUAL) == 0.0


@pytest.mark.parametrize("distance", PAIRWISE)
def test_arrays_of_different_shape_are_rejected_and_never_broadcast(distance):
    with pytest.raises(ValueError, match=r"shapes differ: \(2, 2\) and \(1, 2\)"):
        distance(REFERENCE, ACTUAL[:1])


@pytest.mark.parametrize("distance", PAIRWISE)
def test_empty_arrays_are_rejected(distance):
    with pytest.raises(ValueError, match="nothing to compare"):
        distance(np.empty((0, 2)), np.empty((0, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_differences_of_small_integers_do_not_wrap_around(dtype):
    limits = np.iinfo(dtype)
    low, high = np.array([limits.min], dtype), np.array([limits.max], dtype)
    assert metrics.max_abs_error(low, high) == 255.0
    assert metrics.mean_abs_error(low, high) == 255.0


def test_float32_sums_are_computed_in_double_precision():
    reference = np.full(10**6, 0.1, np.float32)
    assert metrics.rmse(reference, np.zeros_like(reference)) == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@SEEDED
@given(pairs())
def test_the_errors_are_ordered_mean_rmse_max(pair):
    mean, rmse, highest = (
        distance(*pair) for distance in (metrics.mean_abs_error, metrics.rmse, metrics.max_abs_error)
    )
    assert 0 <= mean <= rmse * (1 + 1e-9)
    assert rmse <= highest * (1 + 1e-9)


@SEEDED
@given(pairs())
def test_errors_are_symmetric(pair):
    for distance in (metrics.max_abs_error, metrics.mean_abs_error, metrics.rmse):
        assert distance(*pair) == distance(*pair[::-1])


@SEEDED
@given(pairs())
def test_the_cosine_lies_between_minus_one_and_one(pair):
    assert -1 <= metrics.cosine(*pair) <= 1


@SEEDED
@given(hnp.arrays(np.float32, shapes, elements=numbers))
def test_equal_arrays_have_no_error_and_infinite_sqnr(array):
    assert metrics.max_abs_error(array, array.copy()) == 0
    assert metrics.rmse(array, array.copy()) == 0
    assert metrics.sqnr_db(array, array.copy()) == math.inf
    assert metrics.cosine(array, array.copy()) == pytest.approx(1, abs=1e-12)
    assert metrics.top1_agreement(array, array.copy()) == 1


@SEEDED
@given(pairs())
def test_sqnr_is_infinite_only_for_equal_arrays(pair):
    assert (metrics.sqnr_db(*pair) == math.inf) == bool(np.array_equal(*pair))


@SEEDED
@given(hnp.arrays(np.float32, shapes, elements=st.floats(0.5, 100, width=32)), st.integers(1, 6))
def test_sqnr_grows_by_twenty_db_for_each_tenth_of_noise(array, tenths):
    noisy = array.astype(np.float64) * (1 + 10.0**-tenths)
    assert metrics.sqnr_db(array.astype(np.float64), noisy) == pytest.approx(20 * tenths, abs=1e-3)


@SEEDED
@given(pairs())
def test_the_worst_sample_has_the_largest_error(pair):
    index, error = metrics.worst_sample(*pair)
    assert error == metrics.max_abs_error(*pair)
    assert metrics.max_abs_error(pair[0][index], pair[1][index]) == error


def test_noise_on_a_reference_of_zeros_has_minus_infinite_sqnr():
    assert metrics.sqnr_db(np.zeros(3), np.ones(3)) == -math.inf


def test_the_cosine_of_zero_arrays_is_defined():
    assert metrics.cosine(np.zeros(3), np.zeros(3)) == 1.0
    assert metrics.cosine(np.zeros(3), np.ones(3)) == 0.0
    assert metrics.cosine(np.ones(3), np.zeros(3)) == 0.0


def test_opposite_arrays_have_cosine_minus_one():
    assert metrics.cosine(REFERENCE, -REFERENCE) == pytest.approx(-1)


def test_agreement_counts_samples_with_the_same_top_class():
    reference = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    actual = np.array([[0.2, 0.8], [0.7, 0.3], [0.9, 0.1], [0.6, 0.4]])
    assert metrics.top1_agreement(reference, actual) == 0.75


def test_accuracy_counts_samples_whose_top_class_is_the_label():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert metrics.accuracy(outputs, np.array([1, 0, 0, 0])) == 0.75


def test_mae_does_not_broadcast_a_column_against_a_row():
    outputs, labels = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0])
    assert metrics.mae(outputs, labels) == pytest.approx(1 / 3)


def test_every_task_metric_is_registered_under_its_own_name():
    assert {"accuracy", "mae"} <= set(metrics.TASK_METRICS)
    assert all(metric.name == name for name, metric in metrics.TASK_METRICS.items())


def test_a_drop_is_positive_when_the_artifact_is_worse():
    accuracy, mae = metrics.TASK_METRICS["accuracy"], metrics.TASK_METRICS["mae"]
    assert accuracy.drop(0.97, 0.95) == pytest.approx(0.02)
    assert accuracy.drop(0.95, 0.97) == pytest.approx(-0.02)
    assert mae.drop(0.10, 0.13) == pytest.approx(0.03)
    assert mae.drop(0.13, 0.10) == pytest.approx(-0.03)


def test_accuracy_is_a_share_and_mae_is_not():
    assert metrics.TASK_METRICS["accuracy"].is_share
    assert not metrics.TASK_METRICS["mae"].is_share


SCORES = np.array([0.1, 0.4, 0.35, 0.8])
LABELS = np.array([0, 0, 1, 1])


def test_auc_is_the_probability_that_a_positive_scores_above_a_negative():
    assert metrics.roc_auc(SCORES, LABELS) == 0.75
    assert metrics.roc_auc(LABELS.astype(float), LABELS) == 1.0
    assert metrics.roc_auc(-LABELS.astype(float), LABELS) == 0.0


def test_ties_count_half_in_an_auc():
    assert metrics.roc_auc(np.ones(4), LABELS) == 0.5
    assert metrics.roc_auc(np.array([1.0, 2.0, 2.0, 3.0]), LABELS) == pytest.approx(0.875)


@SEEDED
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_equals_the_share_of_correctly_ordered_pairs(labelled_scores):
    scores, labels = np.array([s for s, _ in labelled_scores], float), np.array([b for _, b in labelled_scores], int)
    positives, negatives = scores[labels == 1], scores[labels == 0]
    if len(positives) == 0 or len(negatives) == 0:
        with pytest.raises(ValueError, match="AUC needs positive and negative labels"):
            metrics.roc_auc(scores, labels)
        return
    wins = np.mean((positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives))
    assert metrics.roc_auc(scores, labels) == pytest.approx(wins)


def test_a_score_of_nan_makes_the_auc_nan():
    assert math.isnan(metrics.roc_auc(np.array([0.1, math.nan, 0.3, 0.4]), LABELS))


def test_the_auc_of_a_detector_is_that_of_its_reconstruction_error():
    inputs = np.zeros((4, 3, 2))
    outputs = inputs.copy()
    outputs[2:, 0, 0] = 5.0
    auc = metrics.TASK_METRICS["auc"]
    assert auc.compute(outputs, LABELS, inputs) == 1.0
    assert auc.compute(outputs, 1 - LABELS, inputs) == 0.0
    assert auc.drop(0.99, 0.97) == pytest.approx(0.02)


def test_every_task_metric_takes_outputs_labels_and_inputs():
    outputs, inputs = np.array([[0.1, 0.9], [0.8, 0.2]]), np.zeros((2, 5))
    assert metrics.TASK_METRICS["accuracy"].compute(outputs, np.array([1, 1]), inputs) == 0.5
    assert metrics.TASK_METRICS["mae"].compute(outputs[:, :1], np.array([0.1, 0.9]), inputs) == pytest.approx(0.05)
