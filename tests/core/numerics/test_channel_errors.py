"""Channels that an artifact has lost: what must be found, and what must not be reported."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.numerics.channel_errors import floor_db, lost_channels, unlike_channels
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.tolerances import Tolerances

SEEDED = settings(derandomize=True, max_examples=60)
INT8 = find_precision("int8").tolerances
seeds = st.integers(0, 2**32 - 1)


def quantized(values, noise=0.0, rng=None):
    """Round to an int8 grid over all values, after noise of some steps."""
    low, high = min(values.min(), 0), max(values.max(), 0)
    step = (high - low) / 255
    zero = np.round(-low / step)
    shaken = values if rng is None else values + noise * step * rng.standard_normal(values.shape)
    return ((np.clip(np.round(shaken / step) + zero, 0, 255) - zero) * step).astype(np.float32)


def indices(reference, actual, limits=INT8, layout=None):
    return [channel.index for channel in lost_channels(reference, actual, limits, layout)]


def detector(rng, n=16, scale=640.0, low=0.015, high=0.09):
    boxes = scale * rng.random((n, 10, 4))
    scores = low + (high - low) * rng.random((n, 10, 3))
    return np.concatenate([boxes, scores], axis=-1).astype(np.float32)


@SEEDED
@given(seeds, st.floats(100, 4000))
def test_scores_beside_pixels_are_lost_in_int8(seed, scale):
    reference = detector(np.random.default_rng(seed), scale=scale)
    lost = lost_channels(reference, quantized(reference), INT8)
    assert [channel.index for channel in lost if channel.kind == "channel"] == [4, 5, 6]
    assert unlike_channels(reference) == (4, 5, 6)


@SEEDED
@given(seeds, st.floats(0, 3))
def test_a_tensor_of_one_quantity_loses_nothing_in_int8(seed, noise):
    rng = np.random.default_rng(seed)
    # Channels of a classifier's logits or of a series differ in scale by a few times.
    reference = (rng.standard_normal((64, 10)) * rng.uniform(0.5, 2, 10) + rng.normal(0, 1, 10)).astype(np.float32)
    assert indices(reference, quantized(reference, noise, rng)) == []


@SEEDED
@given(seeds, st.floats(0, 2))
def test_rare_classes_of_a_softmax_are_not_lost(seed, noise):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((64, 20))
    logits[:, 12:] -= 14  # probabilities below 1e-4
    reference = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert indices(reference.astype(np.float32), quantized(reference, noise, rng)) == []


@SEEDED
@given(seeds)
def test_one_hot_outputs_dead_channels_and_rare_sigmoids_are_not_lost(seed):
    rng = np.random.default_rng(seed)
    one_hot = np.eye(8, dtype=np.float32)[rng.integers(0, 5, 32)]  # three classes do not occur
    assert indices(one_hot, quantized(one_hot)) == []
    rare = rng.random((32, 4)).astype(np.float32) * np.array([1, 1, 0.5, 1e-3], np.float32)
    assert indices(rare, quantized(rare)) == []
    dead = np.maximum(rng.standard_normal((32, 4)), 0).astype(np.float32)
    dead[:, 2] = 0
    assert indices(dead, quantized(dead) + np.float32(0.004)) == []


@SEEDED
@given(seeds, st.floats(0, 2))
def test_black_borders_of_an_image_are_not_lost(seed, noise):
    rng = np.random.default_rng(seed)
    image = rng.random((16, 12, 12, 1)).astype(np.float32) * 2 - 0.5
    image[:, :2] *= 0.01
    image[:, :, -2:] *= 0.01
    assert indices(image, quantized(image, noise, rng), layout="NHWC") == []
    channels_first = np.moveaxis(image, -1, 1)
    assert indices(channels_first, np.moveaxis(quantized(image, noise, rng), -1, 1), layout="NCHW") == []


@SEEDED
@given(seeds, st.sampled_from([np.zeros_like, lambda channel: channel[::-1], lambda channel: -channel]))
def test_one_broken_channel_among_a_thousand_is_found(seed, break_it):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((32, 1000)).astype(np.float32)
    actual = quantized(reference)
    actual[:, 7] = break_it(actual[:, 7])
    assert indices(reference, actual) == [7]


@SEEDED
@given(seeds)
def test_a_channel_that_turned_constant_is_found_behind_a_large_mean(seed):
    reference = (100 + 3 * np.random.default_rng(seed).standard_normal((32, 1))).astype(np.float32)
    constant = np.full_like(reference, 100)
    (lost,) = lost_channels(reference, constant, INT8)
    assert "constant at 100" in str(lost)
    # 30 dB over the whole tensor, so that no other figure sees it.
    assert lost.sqnr_db > 25


def test_a_variation_that_no_int8_scale_represents_is_not_asked_for():
    rng = np.random.default_rng(0)
    reference = (300 + 0.5 * rng.standard_normal((64, 1))).astype(np.float32)
    assert indices(reference, quantized(reference)) == []


def test_rows_of_unlike_scale_are_judged():
    rng = np.random.default_rng(0)
    reference = np.stack([640 * rng.random((16, 20)), 0.1 * rng.random((16, 20))], axis=1).astype(np.float32)
    assert [(lost.kind, lost.index) for lost in lost_channels(reference, quantized(reference), INT8)] == [("row", 1)]


@pytest.mark.parametrize(("precision", "error"), [("float32", 5e-4), ("float16", 2e-2)])
def test_floating_point_errors_are_judged_at_the_scale_of_the_channel(precision, error):
    rng = np.random.default_rng(0)
    reference = detector(rng)
    limits = find_precision(precision).tolerances
    fine = (reference * (1 + 3e-8 * rng.standard_normal(reference.shape))).astype(np.float32)
    assert indices(reference, fine, limits) == []
    wrong = fine.copy()
    wrong[..., 5] += np.float32(error) * rng.standard_normal(wrong.shape[:-1]).astype(np.float32)
    assert indices(reference, wrong, limits) == [5]


def test_few_values_are_no_statistics_and_without_limits_nothing_is_judged():
    reference = np.array([[1.0, 1e-3]], np.float32)
    assert indices(reference, np.array([[1.0, 0.0]], np.float32)) == []
    many = detector(np.random.default_rng(0))
    assert indices(many, np.zeros_like(many), Tolerances()) == []


@pytest.mark.parametrize(
    ("limits", "floor"),
    [
        (Tolerances(min_sqnr_db=20.0), 6.0),
        (Tolerances(min_sqnr_db=10.0), 1.0),
        (Tolerances(min_cosine=0.9999), 37 - 14),
        (Tolerances(max_abs_error=1.0), None),
    ],
)
def test_the_floor_follows_the_limits_of_the_tensor(limits, floor):
    assert floor_db(limits) == (None if floor is None else pytest.approx(floor, abs=0.05))
