"""Quantization and dequantization of arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.numerics.affine_quantization import dequantize, from_tensor, quantize, to_tensor
from edgekit.core.values.specs import Quantization, TensorSpec

SEEDED = settings(derandomize=True, max_examples=100)

dtypes = st.sampled_from(["int8", "uint8", "int16"])
scales = st.floats(1e-6, 1e3)


@st.composite
def quantizations(draw):
    """A dtype, and a scale and zero point for it."""
    dtype = draw(dtypes)
    limits = np.iinfo(dtype)
    return dtype, Quantization((draw(scales),), (draw(st.integers(int(limits.min), int(limits.max))),))


@SEEDED
@given(quantizations(), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_within_the_range_the_error_is_at_most_half_a_step(case, shares):
    dtype, quantization = case
    limits = np.iinfo(dtype)
    integers = limits.min + np.asarray(shares) * (limits.max - limits.min)
    real = (integers - quantization.zero_point[0]) * quantization.scale[0]
    back = dequantize(quantize(real, quantization, dtype), quantization, "float64")
    assert np.all(np.abs(back - real) <= quantization.scale[0] / 2 * (1 + 1e-6))


@SEEDED
@given(quantizations(), st.data())
def test_integers_survive_a_round_trip_through_real_values(case, data):
    dtype, quantization = case
    limits = np.iinfo(dtype)
    values = st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1, max_size=20)
    integers = np.asarray(data.draw(values), dtype)
    np.testing.assert_array_equal(quantize(dequantize(integers, quantization), quantization, dtype), integers)


@SEEDED
@given(quantizations(), st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=10))
def test_quantized_values_are_clipped_and_never_wrap_around(case, values):
    dtype, quantization = case
    real = np.sort(np.asarray(values))
    integers = quantize(real, quantization, dtype)
    assert integers.dtype == dtype
    assert np.all(np.diff(integers.astype(np.int64)) >= 0)


def test_values_beyond_the_range_are_clipped_to_its_ends():
    quantization = Quantization((0.1,), (0,))
    np.testing.assert_array_equal(quantize(np.array([-99.0, 99.0]), quantization, "int8"), [-128, 127])
    np.testing.assert_array_equal(quantize(np.array([-99.0, 99.0]), quantization, "uint8"), [0, 255])


def test_halves_are_rounded_to_the_even_neighbour():
    halves = np.array([-1.5, -0.5, 0.5, 1.5, 2.5])
    np.testing.assert_array_equal(quantize(halves, Quantization((1.0,), (0,)), "int8"), [-2, 0, 0, 2, 2])


def test_the_zero_point_stands_for_zero():
    quantization = Quantization((0.25,), (-5,))
    assert quantize(np.zeros(1), quantization, "int8")[0] == -5
    assert dequantize(np.array([-5], np.int8), quantization)[0] == 0.0


def test_subtracting_the_zero_point_does_not_overflow_the_integer_type():
    assert dequantize(np.array([127], np.int8), Quantization((1.0,), (-128,)))[0] == 255.0


@pytest.mark.parametrize(("axis", "expected"), [(0, [[1, 1], [20, 20]]), (1, [[1, 10], [2, 20]])])
def test_each_slice_along_the_axis_has_its_own_scale(axis, expected):
    integers = np.array([[1, 1], [2, 2]], np.int8)
    real = dequantize(integers, Quantization((1.0, 10.0), (0, 0), axis))
    np.testing.assert_array_equal(real, expected)
    np.testing.assert_array_equal(quantize(real, Quantization((1.0, 10.0), (0, 0), axis), "int8"), integers)


def test_each_slice_along_the_axis_has_its_own_zero_point():
    real = dequantize(np.zeros((2, 3), np.int8), Quantization((1.0, 1.0), (4, -4), 0))
    np.testing.assert_array_equal(real, [[-4] * 3, [4] * 3])


def test_the_shape_is_kept_and_the_dtype_is_the_requested_one():
    real = np.zeros((2, 3, 4), np.float32)
    quantization = Quantization((0.5,), (1,))
    assert quantize(real, quantization, "int16").shape == (2, 3, 4)
    assert dequantize(real.astype(np.int8), quantization).dtype == np.float32
    assert dequantize(real.astype(np.int8), quantization, "float64").dtype == np.float64


def test_an_integer_tensor_is_fed_quantized_values():
    spec = TensorSpec("x", (1, 2), "int8", quantization=Quantization((0.5,), (1,)))
    fed = to_tensor(np.array([[1.0, -1.0]], np.float32), spec)
    assert fed.dtype == np.int8
    np.testing.assert_array_equal(fed, [[3, -1]])


def test_values_that_are_integers_already_are_fed_unchanged():
    spec = TensorSpec("x", (1, 2), "int8", quantization=Quantization((0.5,), (1,)))
    array = np.array([[7, 8]], np.int8)
    assert to_tensor(array, spec) is array


def test_a_float_tensor_is_fed_and_read_unchanged():
    spec = TensorSpec("x", (1, 2), "float32")
    array = np.ones((1, 2), np.float32)
    assert to_tensor(array, spec) is array
    assert from_tensor(array, spec) is array


def test_values_of_a_quantized_tensor_are_read_as_real_values():
    spec = TensorSpec("y", (1, 2), "uint8", quantization=Quantization((0.5,), (128,)))
    read = from_tensor(np.array([[128, 130]], np.uint8), spec)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, [[0.0, 1.0]])


integers = st.sampled_from(["int8", "int16", "int32", "int64"])


@SEEDED
@given(integers, integers, st.data())
def test_integers_change_their_width_only_when_no_value_is_lost(have, want, data):
    limits = np.iinfo(have)
    edges = st.sampled_from([0, -1, 127, 128, -128, -129]).filter(lambda value: limits.min <= value <= limits.max)
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)) | edges, min_size=1, max_size=5))
    array = np.array(values, have)
    fed = to_tensor(array, TensorSpec("ids", (len(values),), want))
    np.testing.assert_array_equal(fed, array)
    fits = all(np.iinfo(want).min <= value <= np.iinfo(want).max for value in values)
    assert fed.dtype == (want if fits else have)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1, 2], np.int64), "float32"),
        (np.array([1, 2], np.int64), "uint8"),
        (np.array([1, 2], np.uint8), "int8"),
        (np.array([True, False]), "int32"),
        (np.array([1.0, 2.0], np.float64), "float32"),
        (np.array([1.0, 2.0], np.float32), "int8"),
    ],
)
def test_any_other_wrong_dtype_stays_wrong(array, dtype):
    assert to_tensor(array, TensorSpec("x", (2,), dtype)) is array
