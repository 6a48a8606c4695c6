"""Made-up inputs that real samples seldom hold."""

import numpy as np
import pytest

from edgekit.core.numerics.stress_inputs import OUTSIDE, WITHIN, stress_inputs
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
    cases, made = stress_inputs(SIGNATURE, REAL, outside=outside)
    count = len(WITHIN) + (len(OUTSIDE) if outside else 0)
    assert len(cases) == count
    assert {name: array.shape for name, array in made.items()} == {
        "image": (count, 4, 4),
        "token": (count, 3),
        "gain": (count,),
        "pair": (2 * count, 3),
    }
    assert all(array.dtype == REAL[name].dtype for name, array in made.items())
    assert all(np.isfinite(array).all() for array in made.values())


def test_whole_numbers_stay_among_those_that_the_model_knows():
    _, made = stress_inputs(SIGNATURE, REAL, outside=True)
    assert made["token"].min() >= 2
    assert made["token"].max() <= 8


def test_the_cases_are_what_they_are_called():
    cases, made = stress_inputs(SIGNATURE, REAL, outside=True)
    images = dict(zip(cases, made["image"], strict=True))
    low, high = REAL["image"].min(), REAL["image"].max()
    assert not images["zeros"].any()
    assert set(np.unique(images["alternating extremes"])) == {low, high}
    assert images["far above"].min() > high
    assert 0 < np.abs(images["denormals"]).max() < np.finfo(np.float32).tiny
    assert len({array.tobytes() for array in made["image"]}) == len(cases)


def test_they_are_the_same_every_time():
    first, second = (stress_inputs(SIGNATURE, REAL, outside=True)[1] for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
