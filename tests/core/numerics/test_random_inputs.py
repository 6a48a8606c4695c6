"""Random samples: of the right shapes and types, and the same ones each time."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.numerics.random_inputs import RANDOM_SAMPLES, UnknownSize, random_inputs
from edgekit.core.values.specs import Quantization, Signature, TensorSpec


def draw(*specs, **sizes):
    return random_inputs(Signature(specs, ()), sizes)


def test_shapes_follow_the_batch_and_the_sizes():
    drawn = draw(
        TensorSpec("x", ("batch", 3, "length"), "float32"), TensorSpec("pair", (2, 4), "int64"),
        TensorSpec("gain", (), "float32"), length=5,
    )  # fmt: skip
    shapes = {name: array.shape for name, array in drawn.items()}
    assert shapes == {"x": (RANDOM_SAMPLES, 3, 5), "pair": (2 * RANDOM_SAMPLES, 4), "gain": (RANDOM_SAMPLES,)}
    assert {name: str(array.dtype) for name, array in drawn.items()} == {
        "x": "float32", "pair": "int64", "gain": "float32",
    }  # fmt: skip
    assert set(np.unique(drawn["pair"])) == {0, 1}


def test_integers_with_a_scale_are_real_values_of_their_whole_range():
    (array,) = draw(TensorSpec("x", (1, 4000), "int8", None, Quantization((0.5,), (-28,)))).values()
    assert array.dtype == np.float32
    assert (array.min(), array.max()) == (0.5 * (-128 + 28), 0.5 * (127 + 28))


def test_they_are_the_same_each_time():
    spec = TensorSpec("x", (1, 7), "float32")
    np.testing.assert_array_equal(draw(spec)["x"], draw(spec)["x"])


def test_a_dimension_without_a_size_is_named():
    with pytest.raises(UnknownSize, match="the dimension length of x has no size") as caught:
        draw(TensorSpec("x", ("batch", "length"), "float32"))
    assert (caught.value.input, caught.value.dim) == ("x", "length")
