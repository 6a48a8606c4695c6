"""Learning rate schedules, sample orders and epoch seeds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.config.model import TrainingSpec
from edgekit.training._schedule import epoch_seed, learning_rate, sample_order

SEEDED = settings(derandomize=True, max_examples=50)
PLAIN = TrainingSpec(epochs=10, batch_size=8, learning_rate=0.1, loss="mse")
COSINE = replace(PLAIN, final_learning_rate=0.02)


def rates(spec, epochs):
    return [round(learning_rate(spec, epoch), 10) for epoch in epochs]


def test_without_a_schedule_the_rate_is_constant():
    assert rates(PLAIN, (0, 5, 10)) == [0.1, 0.1, 0.1]


def test_cosine_goes_from_the_first_rate_to_the_final_one():
    assert rates(COSINE, (0, 5, 10, 11)) == [0.1, 0.06, 0.02, 0.02]


def test_cosine_without_a_final_rate_goes_to_zero():
    assert rates(replace(PLAIN, schedule="cosine"), (0, 5, 10)) == [0.1, 0.05, 0.0]


def test_step_multiplies_the_rate_by_its_factor_every_step_epochs():
    spec = replace(PLAIN, schedule="step", step_epochs=3, step_factor=0.5)
    assert rates(spec, (0, 2.99, 3, 6, 9)) == [0.1, 0.1, 0.05, 0.025, 0.0125]


def test_step_without_step_epochs_drops_twice():
    spec = replace(PLAIN, schedule="step")
    assert rates(spec, (0, 3.9, 4, 8, 9.9)) == [0.1, 0.1, 0.01, 0.001, 0.001]


def test_warm_up_rises_from_zero_and_the_schedule_covers_the_remaining_epochs():
    spec = replace(COSINE, warmup_epochs=2)
    assert rates(spec, (0, 1, 2, 6, 10)) == [0.0, 0.05, 0.1, 0.06, 0.02]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@SEEDED
@given(st.integers(1, 30), st.floats(0, 40), st.floats(0, 40))
def test_the_rate_never_leaves_its_bounds(schedule, epochs, warmup, epoch):
    spec = replace(PLAIN, epochs=epochs, schedule=schedule, warmup_epochs=warmup)
    assert 0 <= learning_rate(spec, epoch) <= 0.1


@SEEDED
@given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(1, 200))
def test_an_order_contains_every_sample_once_and_depends_only_on_seed_and_epoch(seed, epoch, count):
    first = sample_order(seed, epoch, count)
    assert sorted(first.tolist()) == list(range(count))
    np.testing.assert_array_equal(first, sample_order(seed, epoch, count))


def test_other_epochs_and_seeds_have_other_orders():
    orders = {sample_order(seed, epoch, 100).tobytes() for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    seeds = {epoch_seed(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(seeds) == 9
    assert max(seeds) < 2**31
