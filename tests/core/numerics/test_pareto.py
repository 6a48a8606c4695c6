"""Which candidates no other one beats."""

from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.numerics.pareto import pareto_front

points = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


def test_the_cheapest_and_the_best_are_on_it_and_what_both_beat_is_not():
    assert pareto_front([(1, 9), (9, 1), (9, 9), (5, 5)]) == (True, True, False, True)


def test_equal_points_are_on_it_together():
    assert pareto_front([(1, 1), (1, 1), (1, 2)]) == (True, True, False)


def test_of_nothing_there_is_nothing():
    assert pareto_front([]) == ()


@given(points)
def test_each_point_is_on_it_or_beaten_by_one_that_is(found):
    marks = pareto_front(found)
    best = [point for point, mark in zip(found, marks, strict=True) if mark]
    assert best
    for point, mark in zip(found, marks, strict=True):
        beaten = any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in best)
        assert beaten != mark
