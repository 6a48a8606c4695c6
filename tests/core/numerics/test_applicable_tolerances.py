"""Default tolerances, overrides of a model, and their explanations."""

import math

import pytest

from edgekit.core.numerics.applicable_tolerances import (
    ROUNDING_FACTOR,
    ROUNDING_FLOOR,
    explain_limit,
    tolerances_for_precision,
)
from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.values.precisions import PRECISIONS, find_precision
from edgekit.core.values.tolerances import Tolerances

NAMES = ("max_abs_error", "mean_abs_error", "rmse", "min_sqnr_db", "min_cosine", "min_top1_agreement")


def test_every_precision_has_defaults_that_limit_something():
    assert all(precision.tolerances.limits() for precision in PRECISIONS)


@pytest.mark.parametrize(("stricter", "looser"), [("float32", "float16"), ("float16", "int8"), ("int16x8", "int4")])
def test_a_coarser_precision_never_has_a_stricter_default(stricter, looser):
    fine, coarse = find_precision(stricter).tolerances, find_precision(looser).tolerances
    assert fine.min_cosine >= coarse.min_cosine
    assert fine.min_top1_agreement >= coarse.min_top1_agreement


def test_float32_has_the_strictest_default():
    assert find_precision("float32").tolerances.max_abs_error <= 1e-5
    assert find_precision("float32").tolerances.min_top1_agreement == 1.0


@pytest.mark.parametrize("name", ["max_abs_error", "mean_abs_error", "rmse"])
def test_a_negative_error_limit_is_rejected(name):
    with pytest.raises(ValueError) as caught:
        Tolerances(**{name: -0.5})
    assert str(caught.value) == f"{name} must not be negative (got -0.5)"


@pytest.mark.parametrize("name", ["max_abs_error", "mean_abs_error", "rmse"])
def test_a_limit_of_zero_counts_as_set(name):
    assert Tolerances(**{name: 0.0}).limits() == {name: 0.0}


@pytest.mark.parametrize("value", [-1.01, 1.01])
def test_a_cosine_limit_out_of_range_is_rejected(value):
    with pytest.raises(ValueError) as caught:
        Tolerances(min_cosine=value)
    assert str(caught.value) == f"min_cosine must lie between -1 and 1 (got {value})"


@pytest.mark.parametrize("value", [-0.01, 1.01, 99])
def test_an_agreement_limit_out_of_range_is_rejected(value):
    with pytest.raises(ValueError) as caught:
        Tolerances(min_top1_agreement=value)
    assert str(caught.value) == f"min_top1_agreement must lie between 0 and 1 (got {value})"


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_limit_that_json_cannot_hold_is_rejected(name, value):
    with pytest.raises(ValueError, match=name):
        Tolerances(**{name: value})


def test_the_ends_of_the_ranges_are_allowed():
    assert Tolerances(min_cosine=-1, min_top1_agreement=0).limits() == {"min_cosine": -1, "min_top1_agreement": 0}
    assert Tolerances(min_cosine=1, min_top1_agreement=1).limits() == {"min_cosine": 1, "min_top1_agreement": 1}


def test_only_limits_that_are_set_are_listed():
    assert Tolerances().limits() == {}
    assert Tolerances(rmse=0.1, min_sqnr_db=20.0).limits() == {"rmse": 0.1, "min_sqnr_db": 20.0}


def test_an_override_replaces_the_limits_that_it_sets_and_keeps_the_rest():
    merged = Tolerances(max_abs_error=1.0, min_cosine=0.9).merged(Tolerances(max_abs_error=0.0, rmse=2.0))
    assert merged == Tolerances(max_abs_error=0.0, min_cosine=0.9, rmse=2.0)


def test_no_override_changes_nothing():
    tolerances = Tolerances(rmse=1.0)
    assert tolerances.merged(None) == tolerances
    assert tolerances.merged(Tolerances()) == tolerances


def test_limits_of_a_model_override_the_default_of_the_precision():
    tolerances = tolerances_for_precision("int8", Tolerances(min_top1_agreement=0.99))
    assert tolerances.min_top1_agreement == 0.99
    assert tolerances.min_sqnr_db == find_precision("int8").tolerances.min_sqnr_db
    assert tolerances_for_precision("int8") == find_precision("int8").tolerances


DEEP = Rounding(max_abs_error=4e-6, rmse=1e-6, scale=2.0, samples=64)
EXACT = Rounding(max_abs_error=0.0, rmse=0.0, scale=1.0, samples=64)


def test_the_rounding_of_the_source_determines_the_tolerance_of_float32_only():
    # Tolerances are multiplied by the largest output when they are applied.
    assert tolerances_for_precision("float32", rounding=DEEP).max_abs_error == pytest.approx(ROUNDING_FACTOR * 2e-6)
    assert tolerances_for_precision("float32", rounding=EXACT).max_abs_error == ROUNDING_FLOOR
    assert tolerances_for_precision("float32", Tolerances(max_abs_error=3e-5), DEEP).max_abs_error == 3e-5
    assert tolerances_for_precision("int8", rounding=DEEP) == find_precision("int8").tolerances


@pytest.mark.parametrize(
    ("precision", "name", "override", "rounding", "words"),
    [
        ("float32", "max_abs_error", None, DEEP, "4e-06 from its float64 outputs, on 64 samples"),
        ("float32", "max_abs_error", None, EXACT, "the floor"),
        ("float32", "max_abs_error", None, None, "could not be run in float64"),
        ("float32", "max_abs_error", Tolerances(max_abs_error=1e-3), DEEP, "model.toml"),
        ("float32", "min_cosine", None, DEEP, "order of summation"),
        ("int8", "min_sqnr_db", None, DEEP, "20 dB"),
    ],
)
def test_every_tolerance_is_explained(precision, name, override, rounding, words):
    assert words in explain_limit(precision, name, override, rounding)


def rounding(max_abs_error, scale, *, exact=True):
    return Rounding(max_abs_error, max_abs_error / 4, scale, 16, exact=exact)


def test_small_outputs_whose_rounding_is_known_get_a_small_tolerance():
    limits = tolerances_for_precision("float32", None, rounding(1e-13, 1e-6))
    # Zeros in place of outputs of 1e-6 are wrong by 1e-6.
    assert limits.max_abs_error < 1e-10


def test_the_tolerance_never_exceeds_that_of_float16():
    limits = tolerances_for_precision("float32", None, rounding(0.25, 1.0))
    assert limits.max_abs_error == 1e-2
    assert "no more than 0.01" in explain_limit("float32", "max_abs_error", None, rounding(0.25, 1.0))


def test_without_a_float64_run_the_default_is_the_least_and_conditioning_widens_it():
    stable, sensitive = (rounding(error, 1.0, exact=False) for error in (1e-9, 1e-5))
    assert tolerances_for_precision("float32", None, stable).max_abs_error == 1e-5
    assert tolerances_for_precision("float32", None, sensitive).max_abs_error == pytest.approx(24e-5)
    assert "could not be run in float64" in explain_limit("float32", "max_abs_error", None, sensitive)
