"""The cost model of microcontrollers on timings that were computed from known coefficients."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.config.device_profile import load_profile
from edgekit.core.environment.project import shipped
from edgekit.devices.cost_models import microcontroller
from edgekit.devices.cost_models.microcontroller import TinyRow

CLOCK_MHZ = 100
WORK = (("a", 1_000_000, 1_000), ("b", 10_000_000, 400_000), ("c", 3_000_000, 90_000), ("d", 500_000, 40_000))


def rows(per_mac=3.0, per_output=20.0):
    return [
        TinyRow(name, macs, outputs, microcontroller.latency_ms((per_mac, per_output), macs, outputs, CLOCK_MHZ))
        for name, macs, outputs in WORK
    ]


def test_latency_is_cycles_at_the_clock():
    assert microcontroller.latency_ms((2.0, 10.0), 1_000_000, 50_000, 100) == pytest.approx(25.0)


def test_a_fit_recovers_the_coefficients_of_the_timings():
    assert microcontroller.fit(rows(), CLOCK_MHZ) == pytest.approx((3.0, 20.0))
    assert microcontroller.leave_one_out(rows(), CLOCK_MHZ) == pytest.approx([0.0] * 4, abs=1e-9)


def test_each_row_is_predicted_from_the_others_alone():
    """A row that is twice too slow does not make its own prediction better."""
    wrong = rows()
    wrong[1] = replace(wrong[1], latency_ms=2 * wrong[1].latency_ms)
    errors = microcontroller.leave_one_out(wrong, CLOCK_MHZ)
    assert errors[1] == pytest.approx(-0.5)
    assert max(map(abs, errors[2:])) > 0.05


def test_coefficients_are_never_negative():
    timings = [replace(row, latency_ms=row.macs / 1e5 - row.outputs / 1e5) for row in rows()]
    per_mac, per_output = microcontroller.fit(timings, CLOCK_MHZ)
    assert per_mac > 0
    assert per_output == 0


def test_two_timings_are_too_few_to_estimate_an_error():
    with pytest.raises(ValueError, match="at least three timings, not 2"):
        microcontroller.kernel_spec(rows()[:2], CLOCK_MHZ, "two")
    with pytest.raises(ValueError, match="no timings to fit"):
        microcontroller.fit([], CLOCK_MHZ)


def test_an_estimate_has_the_interval_of_the_largest_error():
    profile = load_profile(shipped("device_profiles") / "stm32l4r5-nucleo.toml")
    assert profile.kernels is not None
    estimate = microcontroller.estimate_latency(profile, "int8", 12_000_000, 0)
    assert estimate is not None
    assert estimate.latency_ms == pytest.approx(profile.kernels.cycles_per_mac * 12e6 / 120e3)
    assert estimate.high_ms / estimate.latency_ms - 1 == pytest.approx(profile.kernels.max_error)
    assert 1 - estimate.low_ms / estimate.latency_ms == pytest.approx(profile.kernels.max_error)
    assert "4 MLPerf Tiny v1.0 timings of NUCLEO-L4R5ZI (CMSIS-NN, called by microTVM)" in estimate.text


@pytest.mark.parametrize(
    ("precision", "macs", "outputs"), [("float32", 1, 1), ("int8", None, 1), ("int8", 1, None), ("int16x8", 1, 1)]
)
def test_there_is_no_estimate_without_matching_timings(precision, macs, outputs):
    profile = load_profile(shipped("device_profiles") / "stm32l4r5-nucleo.toml")
    assert microcontroller.estimate_latency(profile, precision, macs, outputs) is None
    assert microcontroller.estimate_latency(replace(profile, kernels=None), "int8", 1, 1) is None
