"""The cost model of the emulated tier: its formula, its fit, and devices without timings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.config.device_profile import Core, CostSpec, DeviceProfile, MemorySpec, ThreadCost
from edgekit.core.records.emulated_measurement import UNCALIBRATED, Counts
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.cost_models.emulated_core import Coefficients, TimingRow

PROFILE = DeviceProfile("Tiny", "board", "T1", "armv8-a", (Core("big", 4, 2000),), MemorySpec(2**30))
TRUE = Coefficients(0.8, 8.0, {1: 5.0, 4: 9.0})


def counts(instructions, lines):
    return Counts(instructions, 0, 0, 0, 0, 0, 0, instructions, l1_misses=2 * lines, l2_misses=lines)


def row(instructions, lines, threads=1, factor=1.0, precision="float32"):
    row_counts = counts(instructions, lines)
    return TimingRow("net", precision, threads, row_counts, factor * TRUE.latency_ms(row_counts, threads, 2000))


ROWS = [row(2e8, 1e6), row(1.2e8, 9e5), row(2e8, 1.5e6, 4), row(1.2e8, 1.2e6, 4)]


def test_latency_is_the_cycles_at_the_clock_plus_the_cost_of_cache_lines():
    # (0.8 * 2e8 + 8 * 2e6) / 2e9 s = 88 ms; 1e6 lines * 5 ns = 5 ms; four threads share the cycles, not the lines.
    assert TRUE.latency_ms(counts(2e8, 1e6), 1, 2000) == pytest.approx(93)
    assert TRUE.latency_ms(counts(2e8, 1e6), 4, 2000) == pytest.approx(22 + 9)


def test_lines_come_from_the_last_cache_that_the_core_has():
    assert Counts(1, 0, 0, 0, 0, 0, 0, 1).memory_misses == 0
    assert Counts(1, 0, 0, 0, 0, 0, 0, 1, 5, 3).memory_misses == 3
    assert Counts(1, 0, 0, 0, 0, 0, 0, 1, 5, 3, 2).memory_misses == 2


def test_a_fit_recovers_the_coefficients_of_the_timings():
    coefficients = emulated_core.fit(ROWS, PROFILE)
    assert coefficients.cycles_per_instruction == pytest.approx(0.8, rel=0.05)
    assert coefficients.line_ns == {1: pytest.approx(5, rel=0.2), 4: pytest.approx(9, rel=0.2)}
    for timing in ROWS:
        assert coefficients.latency_ms(timing.counts, timing.threads, 2000) == pytest.approx(
            timing.latency_ms, rel=0.01
        )


def test_each_row_is_predicted_from_the_others_alone():
    predictions = emulated_core.leave_one_out(ROWS, PROFILE)
    assert [prediction.row for prediction in predictions] == ROWS
    assert all(abs(prediction.error) < 0.06 for prediction in predictions)
    off = [*ROWS[:1], replace(ROWS[1], latency_ms=2 * ROWS[1].latency_ms), *ROWS[2:]]
    assert emulated_core.leave_one_out(off, PROFILE)[1].error == pytest.approx(-0.5, abs=0.04)


def test_coefficients_are_never_negative():
    # The network with more lines is the faster one: plain least squares would give lines a negative cost.
    coefficients = emulated_core.fit([row(2e8, 1e6, factor=2.0), row(1.9e8, 9e6, factor=0.5)], PROFILE)
    assert coefficients.cycles_per_instruction >= 0
    assert min(coefficients.line_ns.values()) >= 0


def test_a_single_row_is_fitted_and_predicts_nothing():
    (left_out,) = emulated_core.leave_one_out(ROWS[:1], PROFILE)
    assert left_out.error is None
    assert emulated_core.errors([left_out]) is None
    coefficients = emulated_core.fit(ROWS[:1], PROFILE)
    assert coefficients.latency_ms(ROWS[0].counts, 1, 2000) == pytest.approx(ROWS[0].latency_ms, rel=0.01)


def test_a_fit_without_timings_is_an_error():
    with pytest.raises(ValueError, match="no timings to fit"):
        emulated_core.fit([], PROFILE)


def test_a_constant_is_taken_from_the_other_rows_of_the_same_threads_and_precision():
    rows = [replace(timing, latency_ms=ms) for timing, ms in zip(ROWS, (10.0, 5.0, 4.0, 3.0), strict=True)]
    predictions = emulated_core.predict_by_ratio(rows, lambda timing: timing.counts.instructions)
    assert predictions[0].predicted_ms == pytest.approx(2e8 * 5.0 / 1.2e8)
    assert predictions[2].predicted_ms == pytest.approx(2e8 * 3.0 / 1.2e8)
    alone = emulated_core.predict_by_ratio(
        [*rows[:2], replace(rows[2], precision="int8")], lambda timing: timing.counts.instructions
    )
    assert alone[2].predicted_ms is None


def test_the_profile_s_table_has_an_error_for_each_number_of_threads():
    spec = emulated_core.cost_spec(
        emulated_core.fit(ROWS, PROFILE), emulated_core.leave_one_out(ROWS, PROFILE), "4 timings"
    )
    assert [(cost.count, cost.rows) for cost in spec.threads] == [(1, 2), (4, 2)]
    assert all(0 <= cost.mean_error <= cost.max_error < 0.06 for cost in spec.threads)


def spec(max_error=0.08):
    return CostSpec(0.8, 8.0, (ThreadCost(1, 5.0, 2, 0.03, max_error),), "2 timings")


def test_a_calibrated_figure_has_an_interval_of_the_largest_error():
    latency = emulated_core.predict(replace(PROFILE, cost=spec()), "cortex-a72", counts(2e8, 1e6), 1, 4)
    assert latency.calibrated
    assert (latency.low_ms, latency.latency_ms, latency.high_ms) == tuple(
        map(pytest.approx, (93 * 0.92, 93, 93 * 1.08))
    )
    assert latency.calibration == "2 timings; 2 timings at 1 thread, mean error 3.0 %"


def test_no_interval_is_narrower_than_5_percent():
    latency = emulated_core.predict(replace(PROFILE, cost=spec(0.001)), "cortex-a72", counts(2e8, 1e6), 1, 4)
    assert latency.high_ms == pytest.approx(93 * 1.05)


@pytest.mark.parametrize(("profile", "threads"), [(PROFILE, 1), (replace(PROFILE, cost=spec()), 4)])
def test_without_timings_of_so_many_threads_a_figure_is_uncalibrated(profile, threads):
    latency = emulated_core.predict(profile, "cortex-a72", counts(2e8, 1e6), threads, 4)
    assert (latency.calibration, latency.low_ms, latency.high_ms) == (UNCALIBRATED, None, None)
    assert not latency.calibrated
    assert np.isfinite(latency.latency_ms)


OTHERS = dict.fromkeys(("stores", "branches", "fmla", "dot", "simd", "other"), 0)


def marks_between(*steps):
    """Return marks that are (instructions, loads, misses) apart."""
    marks = [{"instructions": 1000, "loads": 10, "l1_misses": 4, **OTHERS}]
    for instructions, loads, misses in steps:
        last = marks[-1]
        step = {"instructions": instructions, "loads": loads, "l1_misses": misses}
        marks.append({**last, **{name: last[name] + value for name, value in step.items()}})
    return marks


def test_counts_between_marks_leave_out_what_calling_costs():
    before, empty, full = (10**6, 10**6, 10**6), (25, 2, 1), (1025, 12, 4)
    difference = Counts.between(marks_between(before, *[empty] * 4, *[full] * 4), 4)
    assert (difference.instructions, difference.loads, difference.l1_misses, difference.l2_misses) == (
        1000,
        10,
        3,
        None,
    )


def test_work_of_single_inferences_is_not_counted():
    """Except for misses, of which there are some more or less each time, and none that counts in the first."""
    empty, full, once, after = (25, 2, 0), (1025, 12, 4), (9000, 90, 8), (1100, 13, 4)
    for some in ((full, once, after, full), (once, after, once, full), (full, full, full, once)):
        difference = Counts.between(marks_between(*[empty] * 4, *some), 4)
        assert (difference.instructions, difference.loads) == (1000, 10)
        assert difference.l1_misses == sum(misses for _, _, misses in some[1:]) / 3


def test_calling_cannot_cost_more_than_the_inference():
    assert Counts.between(marks_between((25, 2, 3), (20, 1, 1)), 1).instructions == 0
