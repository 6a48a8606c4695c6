"""Layouts of images and the permutations between them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.numerics import tensor_layout
from edgekit.core.values.specs import Quantization, Signature, TensorSpec

SEEDED = settings(derandomize=True, max_examples=60)

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
def test_a_permutation_has_the_old_index_of_each_new_dimension(old, new, expected):
    assert tensor_layout.axis_permutation(old, new) == expected


@SEEDED
@given(st.permutations(range(4)).map(tuple))
def test_the_inverse_undoes_a_permutation(order):
    array = np.zeros((2, 3, 5, 7))
    assert array.transpose(order).transpose(tensor_layout.inverse_permutation(order)).shape == array.shape
    assert tensor_layout.inverse_permutation(tensor_layout.inverse_permutation(order)) == order


def test_a_permuted_tensor_keeps_everything_but_shape_and_layout():
    quantization = Quantization((0.5,), (3,))
    spec = TensorSpec("x", ("batch", 3, 32, 48), "int8", "NCHW", quantization)
    expected = TensorSpec("x", ("batch", 32, 48, 3), "int8", "NHWC", quantization)
    assert tensor_layout.permute_spec(spec, (0, 2, 3, 1), "NHWC") == expected


def test_image_inputs_and_outputs_are_permuted_and_nothing_else():
    permuted, orders = tensor_layout.relayout_signature(Signature((PHOTO,), (MASK, SCORES)), "NHWC")
    assert orders == {"photo": (0, 2, 3, 1)}
    assert permuted.inputs == (TensorSpec("photo", ("batch", 32, 48, 3), "float32", "NHWC"),)
    assert permuted.outputs == (MASK, SCORES)
    permuted, orders = tensor_layout.relayout_signature(Signature((PHOTO,), (MASK, SCORES)), "NCHW")
    assert orders == {"mask": (0, 3, 1, 2)}
    assert permuted.outputs == (TensorSpec("mask", ("batch", 1, 16, 24), "float32", "NCHW"), SCORES)


def test_a_signature_that_has_the_layout_already_is_unchanged():
    signature = Signature((PHOTO,), (SCORES,))
    assert tensor_layout.relayout_signature(signature, "NCHW") == (signature, {})


@pytest.mark.parametrize("word", ["nhwc", "NWHC", "", "CHWN"])
def test_an_unknown_layout_is_rejected_with_the_known_ones(word):
    with pytest.raises(InputError) as caught:
        tensor_layout.relayout_signature(Signature((PHOTO,), (SCORES,)), word)
    assert str(caught.value) == f"unknown layout '{word}'; known: NCHW, NHWC"


def test_a_model_without_images_is_rejected():
    with pytest.raises(
        InputError, match="a layout applies to images only, but this model has no input or output of four dim"
    ):
        tensor_layout.relayout_signature(Signature((SCORES,), (SCORES,)), "NHWC")


def test_the_permutations_between_two_signatures_are_those_of_the_images_that_differ():
    old = Signature((PHOTO,), (MASK, SCORES))
    new, orders = tensor_layout.relayout_signature(old, "NHWC")
    assert tensor_layout.permutations_between(old, new) == orders
    assert tensor_layout.permutations_between(new, old) == {
        name: tensor_layout.inverse_permutation(order) for name, order in orders.items()
    }
    assert tensor_layout.permutations_between(old, old) == {}


def test_a_tensor_that_the_new_signature_lacks_has_no_permutation():
    assert tensor_layout.permutations_between(Signature((PHOTO,), (MASK,)), Signature((SCORES,), (SCORES,))) == {}


@SEEDED
@given(st.sampled_from(tensor_layout.LAYOUTS), st.tuples(*[st.integers(1, 5)] * 4))
def test_samples_survive_a_round_trip_to_the_other_layout(name, shape):
    other = next(layout for layout in tensor_layout.LAYOUTS if layout != name)
    samples = {"x": np.random.default_rng(0).random(shape), "scores": np.arange(3.0)}
    transposed = tensor_layout.transpose_arrays(samples, {"x": tensor_layout.axis_permutation(name, other)})
    assert transposed["x"].flags.c_contiguous
    assert transposed["scores"] is samples["scores"]
    assert transposed["x"].shape == tuple(shape[name.index(letter)] for letter in other)
    back = tensor_layout.transpose_arrays(transposed, {"x": tensor_layout.axis_permutation(other, name)})
    np.testing.assert_array_equal(back["x"], samples["x"])
