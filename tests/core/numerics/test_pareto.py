"""The Pareto front of a set of points."""

from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.numerics.pareto import pareto_front

points = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


def test_the_best_point_of_each_coordinate_is_on_the_front_and_a_dominated_one_is_not():
    assert pareto_front([(1, 9), (9, 1), (9, 9), (5, 5)]) == (True, True, False, True)


def test_equal_points_are_on_the_front_together():
    assert pareto_front([(1, 1), (1, 1), (1, 2)]) == (True, True, False)


def test_no_points_have_an_empty_front():
    assert pareto_front([]) == ()


@given(points)
def test_each_point_is_on_the_front_or_dominated_by_a_point_of_the_front(candidates):
    on_front = pareto_front(candidates)
    front = [point for point, is_on_front in zip(candidates, on_front, strict=True) if is_on_front]
    assert front
    for point, is_on_front in zip(candidates, on_front, strict=True):
        dominated = any(best != point and all(a <= b for a, b in zip(best, point, strict=True)) for best in front)
        assert dominated != is_on_front
