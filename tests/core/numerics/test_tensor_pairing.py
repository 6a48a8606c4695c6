"""Which tensors of two models belong together."""

import numpy as np
import pytest

from edgekit.core.errors import InputError
from edgekit.core.numerics.tensor_pairing import check_forced, match_axes, pair_tensors
from edgekit.core.values.specs import TensorSpec


def spec(name, *shape):
    return TensorSpec(name, shape, "float32")


def names(pairs):
    return [(item.first.name, item.second.name, item.by) for item in pairs]


def test_equal_names_come_before_equal_shapes():
    pairs, left, right = pair_tensors([spec("a", 1, 3), spec("b", 1, 3)], [spec("b", 1, 3), spec("x", 1, 3)], {})
    assert names(pairs) == [("a", "x", "shape"), ("b", "b", "name")]
    assert left == right == ()


def test_what_a_person_says_comes_first():
    pairs, _, _ = pair_tensors([spec("a", 1, 3), spec("b", 1, 3)], [spec("a", 1, 3), spec("b", 1, 3)], {"a": "b"})
    assert names(pairs) == [("a", "b", "you"), ("b", "a", "shape")]


def test_what_cannot_be_paired_is_left_on_its_side():
    pairs, left, right = pair_tensors([spec("a", 1, 3), spec("b", 1, 5)], [spec("a", 1, 3), spec("c", 1, 7)], {})
    assert names(pairs) == [("a", "a", "name")]
    assert [item.name for item in left] == ["b"]
    assert [item.name for item in right] == ["c"]


def test_a_forced_pair_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="do not fit each other"):
        pair_tensors([spec("a", 1, 3)], [spec("b", 1, 4)], {"a": "b"})


def test_a_forced_name_that_is_none_is_refused():
    with pytest.raises(InputError, match="the second model has no tensor z; it has: b"):
        check_forced({"a": "z"}, [spec("a", 1)], [spec("b", 1)])


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ((1, 8, 8, 3), (1, 8, 8, 3), (None, False)),
        (("batch", 8, 8, 3), (1, 3, 8, 8), ((0, 3, 1, 2), False)),
        ((1, 3, 8, 6), (4, 8, 6, 3), ((0, 2, 3, 1), False)),
        ((1, "h", "w", 3), (1, 8, 6, 3), (None, False)),
        ((1, 1, 1, 10), (1, 10), (None, True)),
        ((1, 10), (1, 12), None),
        ((1, 8, 8, 3), (1, 8, 9, 3), None),
    ],
)
def test_shapes_fit_across_layouts_and_dimensions_of_one(one, other, how):
    assert match_axes(spec("a", *one), spec("b", *other)) == how


def test_samples_go_there_and_back():
    pairs, _, _ = pair_tensors([spec("a", "n", 8, 6, 3)], [spec("a", 1, 3, 8, 6)], {})
    array = np.random.default_rng(0).normal(size=(5, 8, 6, 3))
    there = pairs[0].forward(array)
    assert there.shape == (5, 3, 8, 6)
    np.testing.assert_array_equal(pairs[0].reverse.forward(there), array)


def test_a_dimension_of_one_is_taken_out():
    pairs, _, _ = pair_tensors([spec("a", 1, 1, 1, 10)], [spec("b", 1, 10)], {})
    assert pairs[0].forward(np.zeros((7, 1, 1, 10))).shape == (7, 10)
    assert pairs[0].how == "shape and order, reshaped"
