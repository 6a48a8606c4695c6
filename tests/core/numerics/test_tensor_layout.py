"""Where the channels of images stand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.numerics import tensor_layout
from edgekit.core.values.specs import Quantization, Signature, TensorSpec

SEEDED = settings(derandomize=True, deadline=None, max_examples=60)

PHOTO = TensorSpec("photo", ("batch", 3, 32, 48), "float32", "NCHW")
MASK = TensorSpec("mask", ("batch", 16, 24, 1), "float32", "NHWC")
SCORES = TensorSpec("scores", ("batch", 10), "float32")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("NCHW", "NHWC", (0, 2, 3, 1)),
        ("NHWC", "NCHW", (0, 3, 1, 2)),
        ("NHWC", "NHWC", (0, 1, 2, 3)),
    ],
)
def test_the_order_says_for_each_new_dimension_which_old_one_it_was(old, new, expected):
    assert tensor_layout.axis_permutation(old, new) == expected


@SEEDED
@given(st.permutations(range(4)).map(tuple))
def test_the_inverse_undoes_an_order(order):
    array = np.zeros((2, 3, 5, 7))
    assert array.transpose(order).transpose(tensor_layout.inverse_permutation(order)).shape == array.shape
    assert tensor_layout.inverse_permutation(tensor_layout.inverse_permutation(order)) == order


def test_a_permuted_tensor_keeps_all_but_shape_and_layout():
    quantization = Quantization((0.5,), (3,))
    spec = TensorSpec("x", ("batch", 3, 32, 48), "int8", "NCHW", quantization)
    expected = TensorSpec("x", ("batch", 32, 48, 3), "int8", "NHWC", quantization)
    assert tensor_layout.permute_spec(spec, (0, 2, 3, 1), "NHWC") == expected


def test_images_on_both_sides_are_relaid_and_nothing_else():
    moved, orders = tensor_layout.relayout_signature(Signature((PHOTO,), (MASK, SCORES)), "NHWC")
    assert orders == {"photo": (0, 2, 3, 1)}
    assert moved.inputs == (TensorSpec("photo", ("batch", 32, 48, 3), "float32", "NHWC"),)
    assert moved.outputs == (MASK, SCORES)
    moved, orders = tensor_layout.relayout_signature(Signature((PHOTO,), (MASK, SCORES)), "NCHW")
    assert orders == {"mask": (0, 3, 1, 2)}
    assert moved.outputs == (TensorSpec("mask", ("batch", 1, 16, 24), "float32", "NCHW"), SCORES)


def test_a_signature_that_has_the_layout_already_stays_as_it_is():
    signature = Signature((PHOTO,), (SCORES,))
    assert tensor_layout.relayout_signature(signature, "NCHW") == (signature, {})


@pytest.mark.parametrize("word", ["nhwc", "NWHC", "", "CHWN"])
def test_an_unknown_layout_is_refused_with_the_known_ones(word):
    with pytest.raises(InputError) as caught:
        tensor_layout.relayout_signature(Signature((PHOTO,), (SCORES,)), word)
    assert str(caught.value) == f"unknown layout '{word}'; known: NCHW, NHWC"


def test_a_model_without_images_has_no_layout():
    with pytest.raises(InputError, match="--layout is for images, and this model has no input or output of four dim"):
        tensor_layout.relayout_signature(Signature((SCORES,), (SCORES,)), "NHWC")


def test_what_lies_between_two_signatures_is_the_order_of_each_image_that_moved():
    old = Signature((PHOTO,), (MASK, SCORES))
    new, orders = tensor_layout.relayout_signature(old, "NHWC")
    assert tensor_layout.permutations_between(old, new) == orders
    assert tensor_layout.permutations_between(new, old) == {
        name: tensor_layout.inverse_permutation(order) for name, order in orders.items()
    }
    assert tensor_layout.permutations_between(old, old) == {}


def test_what_the_new_signature_does_not_have_has_no_order():
    assert tensor_layout.permutations_between(Signature((PHOTO,), (MASK,)), Signature((SCORES,), (SCORES,))) == {}


@SEEDED
@given(st.sampled_from(tensor_layout.LAYOUTS), st.tuples(*[st.integers(1, 5)] * 4))
def test_samples_go_to_the_other_layout_and_back(name, shape):
    other = next(item for item in tensor_layout.LAYOUTS if item != name)
    samples = {"x": np.random.default_rng(0).random(shape), "scores": np.arange(3.0)}
    there = tensor_layout.transpose_arrays(samples, {"x": tensor_layout.axis_permutation(name, other)})
    assert there["x"].flags.c_contiguous
    assert there["scores"] is samples["scores"]
    assert there["x"].shape == tuple(shape[name.index(letter)] for letter in other)
    back = tensor_layout.transpose_arrays(there, {"x": tensor_layout.axis_permutation(other, name)})
    np.testing.assert_array_equal(back["x"], samples["x"])
