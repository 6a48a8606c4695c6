"""Comparing outputs: figures, tolerances, and problems that prevent a measurement."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.environment.atomic_files import to_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.output_comparison import Comparison, Figure, compare_output, compare_outputs, format_figure
from edgekit.core.values.tolerances import Tolerances
from edgekit.core.values.typed_json import decode

SEEDED = settings(derandomize=True, max_examples=60)
NONE = Tolerances()
REFERENCE = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)

outputs = hnp.arrays(np.float32, (3, 2), elements=st.floats(-100, 100, width=32))


def compare(actual, tolerances=NONE, reference=REFERENCE, classifier=False):
    return compare_output("y", reference, actual, tolerances, classifier=classifier)


def shifted(sample, offset):
    actual = REFERENCE.copy()
    actual[sample, 0] += np.float32(offset)
    return actual


def test_equal_outputs_pass_every_tolerance():
    strict = Tolerances(0.0, 0.0, 0.0, min_sqnr_db=200.0, min_cosine=0.9999999, min_top1_agreement=1.0)
    comparison = compare(REFERENCE.copy(), strict, classifier=True)
    assert comparison.passed
    assert comparison.failures == ()
    assert comparison.samples == 3
    assert len(comparison.figures) == 6


def test_an_infinite_sqnr_is_null_and_passes_its_limit():
    comparison = compare(REFERENCE.copy(), Tolerances(min_sqnr_db=20.0))
    figure = next(figure for figure in comparison.figures if figure.name == "sqnr_db")
    assert (figure.value, figure.passed) == (None, True)


def test_noise_on_a_reference_of_zeros_fails_an_sqnr_limit_and_is_valid_json():
    reference = np.zeros((1, 2), np.float32)
    comparison = compare(reference + 1, Tolerances(min_sqnr_db=20.0), reference)
    assert not comparison.passed
    assert comparison.value("sqnr_db") == -999.0
    to_json(asdict(comparison))


def test_the_worst_sample_is_reported():
    assert compare(shifted(1, 0.25)).worst_sample == 1


def test_the_value_of_a_figure_is_looked_up_by_name():
    comparison = compare(shifted(1, 0.25))
    assert comparison.value("max_abs_error") == pytest.approx(0.25, abs=1e-6)
    assert comparison.value("nothing") is None


def test_agreement_is_compared_for_classifiers_only():
    strict = Tolerances(min_top1_agreement=1.0)
    flipped = REFERENCE[:, ::-1].copy()
    assert compare(flipped, strict, classifier=False).passed
    assert compare(flipped, strict, classifier=False).value("top1_agreement") is None
    assert not compare(flipped, strict, classifier=True).passed


@pytest.mark.parametrize(
    ("tolerances", "name", "sign"),
    [
        (Tolerances(max_abs_error=0.1), "max_abs_error", "<="),
        (Tolerances(mean_abs_error=0.01), "mean_abs_error", "<="),
        (Tolerances(rmse=0.1), "rmse", "<="),
        (Tolerances(min_sqnr_db=60.0), "sqnr_db", ">="),
        (Tolerances(min_cosine=0.99999), "cosine", ">="),
    ],
)
def test_a_figure_out_of_tolerance_fails_with_a_clause(tolerances, name, sign):
    comparison = compare(shifted(0, 0.5), tolerances)
    assert not comparison.passed
    (clause,) = comparison.failures
    (limit,) = tolerances.limits().values()
    assert clause == f"output y: {name} {format_figure(comparison.value(name))}, tolerance {sign} {limit:.10g}"


def test_a_figure_exactly_on_its_limit_passes():
    reference = np.array([[1.0], [2.0]])
    comparison = compare(reference + 0.5, Tolerances(max_abs_error=0.5, rmse=0.5), reference)
    assert comparison.value("max_abs_error") == 0.5
    assert comparison.passed


def test_a_figure_without_limit_has_no_limit_text():
    assert {figure.limit_text for figure in compare(shifted(0, 0.5)).figures} == {""}


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        (REFERENCE.astype(np.float64), "dtype is float64, but the source has float32"),
        (REFERENCE[:2], "shape is (2, 2), but the source has (3, 2)"),
        (REFERENCE.reshape(3, 2, 1), "shape is (3, 2, 1), but the source has (3, 2)"),
        (REFERENCE.T.copy(), "shape is (2, 3), but the source has (3, 2)"),
    ],
)
def test_a_different_dtype_or_shape_is_a_problem_without_figures(actual, problem):
    comparison = compare(actual)
    assert (comparison.problem, comparison.figures, comparison.passed) == (problem, (), False)
    assert comparison.worst_sample is None
    assert comparison.failures == (f"output y: {problem}",)


@SEEDED
@given(st.lists(st.booleans(), min_size=3, max_size=3), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_nan_and_infinity_are_counted_by_sample_and_never_pass(bad, value):
    actual = REFERENCE.copy()
    actual[bad, 1] = value
    problem = compare(actual).problem
    if any(bad):
        count = f"in {sum(bad)} of 3 samples, first in sample {bad.index(True)}"
        assert problem == f"the artifact returns NaN or infinity {count}"
    else:
        assert problem is None


def test_a_source_that_returns_nan_is_named_in_the_problem():
    reference = REFERENCE.copy()
    reference[2] = np.nan
    problem = compare(REFERENCE, reference=reference).problem
    assert problem == "the source returns NaN or infinity in 1 of 3 samples, first in sample 2"


def test_nan_in_both_outputs_does_not_pass():
    both = np.full((2, 2), np.nan, np.float32)
    assert not compare(both, reference=both).passed


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_comparing_no_samples_does_not_pass(shape):
    empty = np.empty(shape, np.float32)
    comparison = compare(empty, reference=empty)
    assert not comparison.passed
    assert comparison.problem == "there are no samples to compare"


def test_a_source_that_ignores_its_input_is_judged_but_is_no_evidence():
    constant = np.full((4, 2), 0.5, np.float32)
    limits = Tolerances(max_abs_error=1e-5)
    same = compare(constant, limits, reference=constant)
    assert (same.passed, same.evidence) == (True, False)
    assert not compare(constant + np.float32(0.1), limits, reference=constant).passed


def test_infinities_in_the_same_places_are_equal():
    limits = Tolerances(max_abs_error=1e-5)
    reference = np.array([[-np.inf, 1.0], [2.0, np.inf]], np.float32)
    assert compare(reference + np.float32(1e-6), limits, reference=reference).passed
    other_sign = np.array([[np.inf, 1.0], [2.0, np.inf]], np.float32)
    assert "in 1 of 2 samples" in compare(other_sign, limits, reference=reference).problem


@SEEDED
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 10))
def test_the_cosine_of_float32_has_the_noise_floor_of_its_absolute_tolerance(seed, scale):
    rng = np.random.default_rng(seed)
    reference = (scale * rng.standard_normal((16, 8))).astype(np.float32)
    limits = Tolerances(max_abs_error=1e-6, min_cosine=0.9999999)
    noise = 1e-7 * rng.standard_normal(reference.shape)
    assert compare((reference + noise).astype(np.float32), limits, reference=reference).passed
    unrelated = (scale * rng.standard_normal((16, 8))).astype(np.float32)
    if scale > 1e-4:  # below, the absolute tolerance says that such outputs are noise
        assert not compare(unrelated, limits, reference=reference).passed


def test_class_ids_are_judged_by_agreement_and_not_by_distance():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 5, (16, 8, 8)).astype(np.int32)
    limits = Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_agreement=0.95)
    few = reference.copy()
    few[:, 0, 0] = 4
    assert compare(few, limits, reference=reference).passed
    # Neighbouring ids: their SQNR is high where ids are large.
    shifted_ids = reference + 1000
    assert compare(shifted_ids + 1, limits, reference=shifted_ids).value("agreement") == 0
    assert not compare(shifted_ids + 1, limits, reference=shifted_ids).passed


def test_a_class_that_the_artifact_never_returns_is_lost():
    reference = np.zeros((16, 8, 8), np.int64)
    reference[:, 0, :2] = 3  # 3 % of the elements
    comparison = compare(np.zeros_like(reference), Tolerances(min_agreement=0.95), reference=reference)
    assert comparison.value("agreement") > 0.95
    assert comparison.failures == (
        "output y: class 3 is lost: the source has it in 3.1 % of the elements, the IoU is 0.00",
    )


def test_pixels_are_quantities():
    reference = np.arange(256, dtype=np.uint8).reshape(4, 64)
    assert compare(reference ^ 1, Tolerances(min_sqnr_db=20.0, min_agreement=0.95), reference=reference).passed


def test_one_clipped_sample_is_named():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((64, 4)).astype(np.float32)
    actual = reference + 0.01 * rng.standard_normal((64, 4)).astype(np.float32)
    reference[17] *= 20
    comparison = compare(actual, Tolerances(min_sqnr_db=20.0), reference=reference)
    clause = comparison.failures[0]
    assert "sample 17 alone makes 100 % of the error; the others are at 4" in clause
    assert decode(Comparison, json.loads(to_json(asdict(comparison))), "file") == comparison


def test_a_lost_channel_fails_an_accurate_tensor_and_is_named():
    reference = np.stack([np.linspace(0, 640, 64), np.linspace(0.01, 0.09, 64)], axis=1).astype(np.float32)
    actual = reference * np.array([1, 0], np.float32)
    comparison = compare(actual, Tolerances(min_sqnr_db=20.0, min_cosine=0.99), reference=reference)
    assert comparison.value("sqnr_db") > 60
    assert comparison.failures == (
        "output y: channel 1 is lost: it is constant at 0 for the source's values from 0.01 to 0.09",
    )
    assert comparison.sqnr_db == 0
    assert decode(Comparison, json.loads(to_json(asdict(comparison))), "file") == comparison


def test_a_single_sample_may_be_compared():
    assert compare(REFERENCE[:1], reference=REFERENCE[:1]).passed


def test_integer_outputs_are_compared_too():
    reference = np.array([[1, 250], [3, 4]], np.uint8)
    comparison = compare(reference[:, ::-1].copy(), reference=reference)
    assert comparison.value("max_abs_error") == 249


@SEEDED
@given(outputs, outputs)
def test_a_comparison_survives_a_json_round_trip(reference, actual):
    comparison = compare(actual, Tolerances(rmse=1.0, min_sqnr_db=20.0), reference, classifier=True)
    assert decode(Comparison, json.loads(to_json(asdict(comparison))), "file") == comparison


@SEEDED
@given(outputs, st.floats(0, 10))
def test_a_comparison_passes_exactly_when_it_has_no_failures(actual, limit):
    comparison = compare(actual, Tolerances(max_abs_error=limit))
    assert comparison.passed == (not comparison.failures)
    assert comparison.passed == (comparison.value("max_abs_error") <= limit)


def test_outputs_are_matched_by_name_and_not_by_order():
    doubled = REFERENCE * 2
    comparisons = compare_outputs(
        {"a": REFERENCE, "b": doubled},
        {"b": doubled.copy(), "a": REFERENCE.copy()},
        {"a": NONE, "b": NONE},
        classifier=False,
    )
    assert [comparison.output for comparison in comparisons] == ["a", "b"]
    assert all(comparison.value("max_abs_error") == 0 for comparison in comparisons)


def test_an_output_that_the_artifact_lacks_is_a_problem():
    (comparison,) = compare_outputs(
        {"y": REFERENCE}, {"StatefulPartitionedCall:0": REFERENCE}, {"y": NONE}, classifier=False
    )
    assert not comparison.passed
    assert comparison.failures == ("output y: the artifact has no such output",)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "inf"), (0.123456, "0.123"), (0.9999123, "0.9999123"), (1.0, "1"), (1e-7, "1e-07")]
)
def test_a_figure_is_formatted_with_its_significant_digits(value, text):
    assert format_figure(value) == text


@pytest.mark.parametrize(
    ("change", "passed"),
    [({}, True), ({"value": 0.5}, False), ({"value": 0.5, "passed": True}, False), ({"passed": False}, True)],
    ids=str,
)
def test_the_verdict_on_a_figure_is_computed_and_never_read(change, passed):
    stored = {"name": "max_abs_error", "value": 0.1, "limit": 0.2, "passed": True, **change}
    assert decode(Figure, stored, "file").passed is passed


@pytest.mark.parametrize(
    ("name", "value"),
    [("rmse", -1), ("rmse", None), ("cosine", 1.5), ("top1_agreement", -0.1), ("sqnr_db", -1e9), ("accuracy", 1)],
)
def test_a_figure_outside_the_range_of_its_metric_is_refused(name, value):
    with pytest.raises(InputError):
        decode(Figure, {"name": name, "value": value, "limit": None}, "file")


def test_a_comparison_without_figures_or_samples_fails():
    figure = Figure("rmse", 0.1, 0.2)
    assert Comparison("y", 4, 0, (figure,)).passed
    assert Comparison("y", 4, 0, ()).failures == ("output y: nothing was measured",)
    assert Comparison("y", 0, None, (figure,)).failures == ("output y: nothing was measured",)


def test_the_worst_sample_is_one_of_the_samples():
    with pytest.raises(InputError, match="worst_sample must be less than 4"):
        decode(Comparison, {"output": "y", "samples": 4, "worst_sample": 4, "figures": []}, "file")


def test_noise_on_a_reference_of_zeros_fails_any_tolerance():
    assert not Figure("sqnr_db", -999.0, -2000.0).passed
