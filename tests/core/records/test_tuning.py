"""Candidates of a precision search: constraints, Pareto front and the best one."""

from dataclasses import replace

import pytest

from edgekit.core.records.tuning import Candidate, Constraints, best, nearest, pareto_front
from edgekit.core.values.quantization_recipe import Recipe


def candidate(name, size, drop, latency=None, sqnr=30.0, failures=()):
    return Candidate(Recipe("tflite", name), size, f"{name}-{size}", sqnr, drop, failures=failures, latency_ms=latency)


FLOAT = candidate("float32", 400, 0.0, 4.0, None)
HALF = candidate("float16", 200, 0.0, 4.1, 80.0)
INT8 = candidate("int8", 100, 0.02, 1.0)
INT4 = candidate("int4", 60, 0.3, 2.0, 5.0)
LIMITS = Constraints(0.03, drop_name="accuracy drop")


def test_the_front_is_what_no_candidate_dominates():
    slow = candidate("dynamic", 101, 0.02, 1.5)
    assert pareto_front([FLOAT, HALF, INT8, INT4, slow]) == (FLOAT, HALF, INT8, INT4)
    assert pareto_front([FLOAT, replace(HALF, latency_ms=4.0)]) == (replace(HALF, latency_ms=4.0),)


def test_a_latency_counts_only_if_both_candidates_have_one():
    assert pareto_front([INT8, replace(INT8, size_bytes=101, latency_ms=None)]) == (INT8,)


def test_two_equal_candidates_are_both_on_the_front():
    assert len(pareto_front([INT8, replace(INT8, sha256="other")])) == 2


@pytest.mark.parametrize(("preference", "expected"), [("latency", INT8), ("size", INT8), ("accuracy", FLOAT)])
def test_the_best_candidate_depends_on_the_preference(preference, expected):
    assert best([FLOAT, HALF, INT8], preference) == expected


def test_the_smallest_of_equally_fast_candidates_is_best():
    assert best([FLOAT, HALF, replace(INT8, latency_ms=4.2)], "latency") == replace(INT8, latency_ms=4.2)
    assert best([FLOAT, HALF, replace(INT8, latency_ms=4.6)], "latency") == HALF


def test_there_is_no_best_of_no_candidates():
    assert best([], "latency") is None


def test_violated_limits_are_named_with_their_excess():
    limits = replace(LIMITS, max_size_bytes=150, max_latency_ms=1.5)
    assert INT8.meets(limits)
    assert INT4.breaks(limits) == ("drop", "latency")
    assert INT4.broken(limits) == (
        "accuracy drop 30 points is 27 points too much",
        "latency 2 ms is 500 us too long",
    )
    assert FLOAT.broken(limits)[0] == "size 400 B is 250 B too large"


def test_a_latency_that_was_not_measured_does_not_meet_a_limit():
    assert not replace(INT8, latency_ms=None).meets(replace(LIMITS, max_latency_ms=5.0))
    assert replace(INT8, latency_ms=None).meets(LIMITS)


def test_a_candidate_that_exceeds_a_tolerance_meets_no_constraints():
    inaccurate = replace(INT8, failures=("output y: sqnr_db 5, tolerance >= 20",))
    assert not inaccurate.meets(LIMITS)
    assert inaccurate.breaks(LIMITS) == ("outputs",)
    assert inaccurate.broken(LIMITS) == inaccurate.failures


def test_the_nearest_candidate_violates_the_fewest_limits_by_the_least():
    limits = replace(LIMITS, max_drop=0.01, max_size_bytes=90)
    assert nearest([FLOAT, HALF, INT8, INT4], limits) == HALF  # one limit, by a factor of 2.2
    assert nearest([FLOAT, INT4], limits) == FLOAT  # by 4.4, where INT4 drops thirty times too much
    assert nearest([INT8, INT4], replace(LIMITS, max_drop=0.0)) in (INT8, INT4)
