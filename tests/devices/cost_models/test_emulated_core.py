"""The cost model of the emulated tier: its formula, its fit, and devices without timings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.config.device_profile import Core, CostSpec, DeviceProfile, MemorySpec, PropertyRange
from edgekit.core.records.emulated_measurement import UNCALIBRATED, Counts, CriticalPath, Region
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.cost_models.emulated_core import Coefficients, Prediction, TimingRow, Workload

PROFILE = DeviceProfile("Tiny", "board", "T1", "armv8-a", (Core("big", 4, 2000),), MemorySpec(2**30))
TRUE = Coefficients(0.8, 8.0, 3.0, 4.0, 5.0)


def counts(instructions, lines):
    return Counts(instructions, 0, 0, 0, 0, 0, 0, instructions, l1_misses=2 * lines, l2_misses=lines)


def work(instructions, lines, threads=1, regions=50, undivided=0.1):
    """A network of equal regions, which divide all but a part of the instructions and none of the misses."""
    one = counts(instructions, lines)
    loops = [Region(1, True, (1 - undivided) * instructions / regions, 0)] * regions
    return Workload(one, CriticalPath.of(one, loops, threads), threads)


def row(instructions, lines, threads=1, factor=1.0, precision="float32", family="a", regions=50):
    load = work(instructions, lines, threads, regions)
    return TimingRow("net", family, precision, load, factor * TRUE.latency_ms(load, 2000))


ROWS = [
    row(2e8, 1e6),
    row(1.2e8, 9e5, family="b", regions=150),
    row(2e8, 1.5e6, 4),
    row(1.2e8, 1.2e6, 4, family="b", regions=150),
    row(3e7, 1e5, 4, family="c", regions=200),
    row(3e7, 1e5, 2, family="c", regions=200),
]


def test_latency_is_the_critical_path_at_the_clock_plus_cache_lines_and_parallel_regions():
    # (0.8 * 2e8 + 8 * 2e6) / 2e9 s = 88 ms; 1e6 lines * (3 + 4) ns = 7 ms; one thread hands nothing over.
    assert TRUE.latency_ms(work(2e8, 1e6), 2000) == pytest.approx(95)
    # A tenth of 2e8 instructions and a quarter of the rest, and all misses: 26 + 8 ms; the lines (3 / 4 + 4) ns; 50
    # regions that cost 5 us for each of three further threads.
    assert TRUE.latency_ms(work(2e8, 1e6, 4), 2000) == pytest.approx(26 + 8 + 4.75 + 0.75)


def test_a_region_of_few_tasks_is_divided_by_its_tasks():
    one = counts(1000, 0)
    # 3 tasks on 2 threads: one thread does two of them. One task that is not tiled is done by one thread.
    path = CriticalPath.of(one, [Region(3, False, 600, 0), Region(1, False, 300, 0)], 2)
    assert path == CriticalPath(1, 1000 - 600 / 3, 0)
    assert CriticalPath.of(one, [Region(3, False, 600, 0)], 1) == CriticalPath(0, 1000, 0)


def test_without_an_observed_thread_pool_all_work_is_divided():
    assert CriticalPath.of(counts(1000, 10), None, 4) == CriticalPath(0, 250, 5)


def test_lines_come_from_the_last_cache_that_the_core_has():
    assert Counts(1, 0, 0, 0, 0, 0, 0, 1).memory_misses == 0
    assert Counts(1, 0, 0, 0, 0, 0, 0, 1, 5, 3).memory_misses == 3
    assert Counts(1, 0, 0, 0, 0, 0, 0, 1, 5, 3, 2).memory_misses == 2


def test_a_fit_recovers_the_coefficients_of_the_timings():
    coefficients = emulated_core.fit(ROWS, PROFILE)
    assert coefficients.cycles_per_instruction == pytest.approx(0.8, rel=0.05)
    assert coefficients.region_us == pytest.approx(5, rel=0.2)
    assert coefficients.line_ns + coefficients.bus_line_ns == pytest.approx(7, rel=0.2)
    for timing in ROWS:
        assert coefficients.latency_ms(timing.work, 2000) == pytest.approx(timing.latency_ms, rel=0.03)


def test_each_row_is_predicted_from_networks_of_other_families_alone():
    predictions = emulated_core.leave_family_out(ROWS, PROFILE)
    assert [prediction.row for prediction in predictions] == ROWS
    assert all(abs(prediction.error) < 0.25 for prediction in predictions[:-1])
    assert predictions[-1].error is None  # no other family was timed with two threads
    # The rows of family c are twice as slow: they are predicted as if they did not exist.
    off = [*ROWS[:4], *(replace(timing, latency_ms=2 * timing.latency_ms) for timing in ROWS[4:])]
    assert emulated_core.leave_family_out(off, PROFILE)[4].predicted_ms == predictions[4].predicted_ms


def test_a_family_counts_as_much_as_another_however_many_timings_it_has():
    off = replace(ROWS[1], latency_ms=1.2 * ROWS[1].latency_ms)
    once = emulated_core.fit([ROWS[0], off], PROFILE)
    often = emulated_core.fit([ROWS[0], *[off] * 5], PROFILE)
    assert once.latency_ms(ROWS[0].work, 2000) == pytest.approx(often.latency_ms(ROWS[0].work, 2000), rel=0.03)


def test_work_that_follows_is_added():
    both = work(2e8, 1e6, 4).plus(work(1e8, 1e6, 4), 0.5)
    assert (both.counts.instructions, both.counts.memory_misses, both.path.regions) == (2.5e8, 1.5e6, 75)
    assert both.path.instructions == pytest.approx(1.25 * work(2e8, 1e6, 4).path.instructions)


def test_coefficients_are_never_negative():
    # The network with more lines is the faster one: plain least squares would give lines a negative cost.
    coefficients = emulated_core.fit([row(2e8, 1e6, factor=2.0), row(1.9e8, 9e6, factor=0.5)], PROFILE)
    assert coefficients.cycles_per_instruction >= 0
    assert min(coefficients.line_ns, coefficients.bus_line_ns, coefficients.region_us) >= 0


def test_a_single_family_is_fitted_and_predicts_nothing():
    (left_out,) = emulated_core.leave_family_out(ROWS[:1], PROFILE)
    assert left_out.error is None
    assert emulated_core.errors([left_out]) is None
    coefficients = emulated_core.fit(ROWS[:1], PROFILE)
    assert coefficients.latency_ms(ROWS[0].work, 2000) == pytest.approx(ROWS[0].latency_ms, rel=0.01)


def test_a_fit_without_timings_is_an_error():
    with pytest.raises(ValueError, match="no timings to fit"):
        emulated_core.fit([], PROFILE)


def test_a_constant_is_taken_from_other_families_with_the_same_threads_and_precision():
    rows = [replace(timing, latency_ms=ms) for timing, ms in zip(ROWS[:4], (10.0, 5.0, 4.0, 3.0), strict=True)]
    predictions = emulated_core.predict_by_ratio(rows, lambda timing: timing.work.counts.instructions)
    assert predictions[0].predicted_ms == pytest.approx(2e8 * 5.0 / 1.2e8)
    assert predictions[2].predicted_ms == pytest.approx(2e8 * 3.0 / 1.2e8)
    alone = emulated_core.predict_by_ratio(
        [*rows[:2], replace(rows[2], precision="int8")], lambda timing: timing.work.counts.instructions
    )
    assert alone[2].predicted_ms is None


def pooled(*errors, threads=1):
    timing = row(2e8, 1e6, threads)
    return [Prediction(timing, timing.latency_ms * (1 + error)) for error in errors]


def test_an_interval_covers_nine_of_ten_unseen_timings():
    # Of 19 errors, the 18th smallest: of 20 exchangeable ones, the new one is in nine of ten cases not larger.
    width, unseen = emulated_core.interval_width(pooled(*(0.01 * index for index in range(1, 20))), False)
    assert (width, unseen) == (pytest.approx(0.18), 19)
    # With too few for a quantile it is wider than the largest; errors in both directions are factors.
    assert emulated_core.interval_width(pooled(0.1, -0.2), False) == (pytest.approx(1.25**1.5 - 1), 2)


def test_one_thread_and_several_have_intervals_of_their_own():
    both = [*pooled(*[0.06] * 9, 0.07), *pooled(*[0.3] * 9, 0.2, threads=4)]
    assert emulated_core.interval_width(both, False)[0] == pytest.approx(0.07)
    assert emulated_core.interval_width(both, True)[0] == pytest.approx(0.3)


def test_no_interval_is_narrower_than_5_percent_and_without_errors_it_is_wide():
    assert emulated_core.interval_width(pooled(0.001), False)[0] == pytest.approx(0.05)
    assert emulated_core.interval_width([], True) == (1.0, 0)


def test_the_profile_s_table_has_what_was_fitted_and_how_wide_the_intervals_are():
    unseen = emulated_core.leave_family_out(ROWS, PROFILE)
    table = emulated_core.cost_spec(emulated_core.fit(ROWS, PROFILE), ROWS, unseen, "6 timings")
    # The only timing of two threads is not predicted: no other family has one.
    assert (table.rows, table.threads, table.unseen_one_thread, table.unseen_several_threads) == (6, (1, 2, 4), 2, 3)
    assert 0.05 <= table.width_one_thread < 0.06
    assert table.properties["instructions"] == PropertyRange(3e7, 2e8)


PROPERTIES = {"instructions": PropertyRange(1e8, 2e8), "parallel regions per instruction": PropertyRange(2e-7, 4e-7)}


def spec(width=0.08, threads=(1, 4), properties=None):
    widths = {"width_one_thread": width, "width_several_threads": 2 * width}
    unseen = {"unseen_one_thread": 9, "unseen_several_threads": 19}
    return CostSpec(
        0.8, 8.0, 3.0, 4.0, 5.0, 4, threads, **widths, **unseen, fitted_with="4 timings", properties=properties or {}
    )


def predicted(load, **changes):
    return emulated_core.predict(replace(PROFILE, cost=spec(**changes)), "cortex-a72", load, 4)


def test_a_calibrated_figure_has_an_interval():
    latency = predicted(work(2e8, 1e6))
    assert latency.calibrated
    assert (latency.low_ms, latency.latency_ms, latency.high_ms) == tuple(
        map(pytest.approx, (95 / 1.08, 95, 95 * 1.08))
    )
    assert latency.calibration == (
        "4 timings; interval: 90 % of unseen networks, from 9 timings at 1 thread of families left out of the fit"
    )
    assert latency.unlike == ()
    assert latency.remark == "88 ms .. 103 ms"


def test_several_threads_have_the_interval_of_several_threads_also_where_so_many_were_not_fitted():
    latency = predicted(work(2e8, 1e6, 3))
    assert latency.high_ms == pytest.approx(latency.latency_ms * 1.16)


def test_what_is_unlike_the_fitted_networks_is_said():
    assert predicted(work(2.9e8, 1e6), properties=PROPERTIES).unlike == ()
    assert predicted(work(6e8, 1e6), properties=PROPERTIES).unlike == ("3 times the most instructions",)
    small = predicted(work(2e7, 1e6, 4, regions=40), properties=PROPERTIES)
    assert small.unlike == ("0.2 times the fewest instructions", "5 times the most parallel regions per instruction")
    assert small.remark.endswith("; unlike the fitted networks: " + ", ".join(small.unlike))
    assert predicted(replace(work(2e8, 1e6), runtime="onnxruntime")).unlike == ("run by onnxruntime, not by litert",)


@pytest.mark.parametrize(("profile", "threads"), [(PROFILE, 1), (replace(PROFILE, cost=spec(threads=(1,))), 4)])
def test_without_timings_a_figure_is_uncalibrated(profile, threads):
    latency = emulated_core.predict(profile, "cortex-a72", work(2e8, 1e6, threads), 4)
    assert (latency.calibration, latency.low_ms, latency.high_ms) == (UNCALIBRATED, None, None)
    assert not latency.calibrated
    assert latency.remark == UNCALIBRATED
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
