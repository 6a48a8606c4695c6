"""Pairing of the inputs and outputs of two models."""

import numpy as np
import pytest

from edgekit.core.errors import InputError
from edgekit.core.numerics.tensor_pairing import check_forced, match_axes, pair_by_values, pair_tensors
from edgekit.core.values.specs import TensorSpec


def spec(name, *shape):
    return TensorSpec(name, shape, "float32")


def names(pairs):
    return [(pair.first.name, pair.second.name, pair.by) for pair in pairs]


def test_equal_names_come_before_equal_shapes():
    pairs, left, right = pair_tensors([spec("a", 1, 3), spec("b", 1, 3)], [spec("b", 1, 3), spec("x", 1, 3)], {})
    assert names(pairs) == [("a", "x", "shape"), ("b", "b", "name")]
    assert left == right == ()


def test_pairs_of_the_user_come_first():
    pairs, _, _ = pair_tensors([spec("a", 1, 3), spec("b", 1, 3)], [spec("a", 1, 3), spec("b", 1, 3)], {"a": "b"})
    assert names(pairs) == [("a", "b", "you"), ("b", "a", "shape")]


def test_unpaired_tensors_are_returned_for_each_model():
    pairs, left, right = pair_tensors([spec("a", 1, 3), spec("b", 1, 5)], [spec("a", 1, 3), spec("c", 1, 7)], {})
    assert names(pairs) == [("a", "a", "name")]
    assert [tensor.name for tensor in left] == ["b"]
    assert [tensor.name for tensor in right] == ["c"]


def test_a_forced_pair_of_incompatible_shapes_is_rejected():
    with pytest.raises(InputError, match="a 1x3 float32 and b 1x4 float32 have incompatible shapes"):
        pair_tensors([spec("a", 1, 3)], [spec("b", 1, 4)], {"a": "b"})


def test_a_forced_name_that_does_not_exist_is_rejected():
    with pytest.raises(InputError, match="the second model has no tensor z; it has: b"):
        check_forced({"a": "z"}, [spec("a", 1)], [spec("b", 1)])


@pytest.mark.parametrize(
    ("first", "second", "conversion"),
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
def test_shapes_match_across_layouts_and_dimensions_of_one(first, second, conversion):
    assert match_axes(spec("a", *first), spec("b", *second)) == conversion


def test_samples_survive_a_round_trip_through_a_pair():
    pairs, _, _ = pair_tensors([spec("a", "n", 8, 6, 3)], [spec("a", 1, 3, 8, 6)], {})
    array = np.random.default_rng(0).normal(size=(5, 8, 6, 3))
    converted = pairs[0].forward(array)
    assert converted.shape == (5, 3, 8, 6)
    np.testing.assert_array_equal(pairs[0].reverse.forward(converted), array)


def test_dimensions_of_one_are_removed():
    pairs, _, _ = pair_tensors([spec("a", 1, 1, 1, 10)], [spec("b", 1, 10)], {})
    assert pairs[0].forward(np.zeros((7, 1, 1, 10))).shape == (7, 10)
    assert pairs[0].method == "shape and order, reshaped"


def test_outputs_in_another_order_are_paired_by_their_values():
    rng = np.random.default_rng(0)
    firsts = {name: rng.standard_normal((8, 4)).astype(np.float32) for name in "abc"}
    seconds = {"p": firsts["c"] + np.float32(1e-6), "q": firsts["a"], "r": firsts["b"]}

    def paired(values):
        specs = [[TensorSpec(name, ("batch", 4), "float32") for name in side] for side in (firsts, values)]
        pairs, _, _ = pair_tensors(*specs, {})
        return {pair.first.name: (pair.second.name, pair.by) for pair in pair_by_values(pairs, firsts, values)}

    assert paired(seconds) == {"a": ("q", "values"), "b": ("r", "values"), "c": ("p", "values")}
    in_order = {"p": firsts["a"], "q": firsts["b"], "r": firsts["c"] + 1}
    assert paired(in_order) == {"a": ("p", "shape"), "b": ("q", "shape"), "c": ("r", "shape")}


def test_unrelated_outputs_keep_their_order():
    rng = np.random.default_rng(1)
    firsts, seconds = ({name: rng.standard_normal((8, 4)) for name in names} for names in ("ab", "pq"))
    specs = [[TensorSpec(name, ("batch", 4), "float64") for name in side] for side in (firsts, seconds)]
    pairs, _, _ = pair_tensors(*specs, {})
    assert pair_by_values(pairs, firsts, seconds) == pairs
