"""Noise is changed until it matches the statistics that are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.numerics.norm_matching import NormGradient, NotFinite, match_norms

NOISE = {"x": np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)}


def to_mean(mean: float):
    """Compute the distance of each channel's mean from a mean, as a network with one norm does."""

    def evaluate(inputs):
        gap = inputs["x"].mean(0) - mean
        slope = np.broadcast_to(2 * gap / gap.size / len(inputs["x"]), inputs["x"].shape)
        return NormGradient(float(np.mean(gap**2)), 1, {"x": slope})

    return evaluate


@pytest.mark.parametrize(("mean", "start"), [(0.2, 0.0), (0.6, 0.5), (100.0, 127.5)])
def test_the_search_begins_in_the_nearest_range_and_ends_at_the_statistics(mean, start):
    matched = match_norms(to_mean(mean), NOISE, 60)
    assert matched.norms == 1
    assert abs(np.sqrt(matched.noise_loss) - abs(start - mean)) < 0.25 * max(1, start / 10)
    assert matched.loss < 1e-2 * matched.noise_loss
    assert matched.inputs["x"].dtype == np.float32
    assert np.allclose(matched.inputs["x"].mean(0), mean, atol=0.02 * max(1, start))


def test_the_best_inputs_are_kept_where_the_last_are_worse():
    calls = []

    def worse_and_worse(inputs):
        calls.append(inputs)
        return NormGradient(float(len(calls)), 1, {"x": np.ones_like(inputs["x"])})

    matched = match_norms(worse_and_worse, NOISE, 5)
    assert len(calls) == 3 + 5
    assert matched.loss == matched.noise_loss == 1
    assert np.array_equal(matched.inputs["x"], calls[0]["x"])


def test_a_network_that_overflows_in_every_range_is_reported():
    with pytest.raises(NotFinite):
        match_norms(lambda inputs: NormGradient(np.nan, 1, inputs), NOISE, 5)
