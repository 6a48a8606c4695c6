"""Stress inputs: shapes, ranges and determinism."""

import numpy as np
import pytest

from edgekit.core.numerics.stress_inputs import IN_RANGE, OUT_OF_RANGE, stress_inputs
from edgekit.core.values.specs import Signature, TensorSpec

SIGNATURE = Signature(
    (
        TensorSpec("image", ("batch", 4, 4), "float32"),
        TensorSpec("token", ("batch", 3), "int64"),
        TensorSpec("gain", (), "float32"),
        TensorSpec("pair", (2, 3), "float32"),
    ),
    (TensorSpec("y", ("batch", 1), "float32"),),
)
RNG = np.random.default_rng(0)
REAL = {
    "image": RNG.uniform(-1, 3, (6, 4, 4)).astype(np.float32),
    "token": RNG.integers(2, 9, (6, 3)),
    "gain": RNG.uniform(0, 1, 6).astype(np.float32),
    "pair": RNG.uniform(0, 1, (12, 3)).astype(np.float32),
}


@pytest.mark.parametrize("outside", [False, True])
def test_every_case_is_one_sample_of_every_input(outside):
    cases, inputs = stress_inputs(SIGNATURE, REAL, outside=outside)
    count = len(IN_RANGE) + (len(OUT_OF_RANGE) if outside else 0)
    assert len(cases) == count
    assert {name: array.shape for name, array in inputs.items()} == {
        "image": (count, 4, 4),
        "token": (count, 3),
        "gain": (count,),
        "pair": (2 * count, 3),
    }
    assert all(array.dtype == REAL[name].dtype for name, array in inputs.items())
    assert all(np.isfinite(array).all() for array in inputs.values())


def test_integers_stay_within_the_range_of_the_real_samples():
    _, inputs = stress_inputs(SIGNATURE, REAL, outside=True)
    assert inputs["token"].min() >= 2
    assert inputs["token"].max() <= 8


def test_each_case_has_the_values_of_its_name():
    cases, inputs = stress_inputs(SIGNATURE, REAL, outside=True)
    images = dict(zip(cases, inputs["image"], strict=True))
    low, high = REAL["image"].min(), REAL["image"].max()
    assert not images["zeros"].any()
    assert set(np.unique(images["alternating extremes"])) == {low, high}
    assert images["far above"].min() > high
    assert 0 < np.abs(images["denormals"]).max() < np.finfo(np.float32).tiny
    assert len({array.tobytes() for array in inputs["image"]}) == len(cases)


def test_stress_inputs_are_deterministic():
    first, second = (stress_inputs(SIGNATURE, REAL, outside=True)[1] for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
