"""What one unit in the last place of the inputs does to the outputs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.numerics.rounding_error import measure_rounding, perturbed, with_conditioning

SEEDED = settings(derandomize=True, max_examples=30)


@SEEDED
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_inputs_are_moved_by_one_unit_in_the_last_place(seed, scale):
    array = (scale * np.random.default_rng(seed).standard_normal((4, 5))).astype(np.float32)
    array[0, 0] = 0
    moved = perturbed({"x": array, "ids": np.arange(3)})
    assert moved["x"].dtype == np.float32
    assert moved["x"][0, 0] == 0
    units = np.abs(moved["x"] - array) / np.spacing(np.abs(array))
    assert np.all((units[array != 0] == 1) | (units[array != 0] == 0.5))  # half below a power of two
    np.testing.assert_array_equal(moved["ids"], np.arange(3))


def test_an_ill_conditioned_network_widens_its_rounding_error():
    x = np.linspace(1, 2, 16, dtype=np.float32)[:, None]

    def difference(values):
        return {"y": ((values - np.float32(1.5)) * np.float32(1e4)).astype(np.float32)}

    exact = {"y": (x.astype(np.float64) - 1.5) * 1e4}
    outputs = difference(x)
    measured = measure_rounding(outputs, exact)
    widened = with_conditioning(measured, outputs, difference(perturbed({"x": x[:8]})["x"]))
    # 2^-23 at an input near 1, times the gain.
    assert widened["y"].max_abs_error > 1e-3
    assert widened["y"].max_abs_error > measured["y"].max_abs_error
    assert widened["y"].exact


def test_without_a_float64_run_conditioning_is_a_lower_bound():
    outputs = {"y": np.ones((4, 2), np.float32), "ids": np.arange(4)}
    moved = {"y": outputs["y"][:2] + np.float32(1e-6), "ids": np.arange(2)}
    widened = with_conditioning({}, outputs, moved)
    assert set(widened) == {"y"}
    assert not widened["y"].exact
    assert 9e-7 < widened["y"].max_abs_error < 1.2e-6
