"""Timing, tested with a simulated clock."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.numerics import timing
from edgekit.core.numerics.timing import Distribution

SEEDED = settings(derandomize=True, max_examples=60)


class FakeTime:
    """Wall and CPU time that only pass while work is done."""

    def __init__(self):
        self.wall_ns = 10**9
        self.cpu_ns = 5 * 10**8

    def perf_counter_ns(self):
        return self.wall_ns

    def process_time_ns(self):
        return self.cpu_ns

    def work(self, wall_ns, cpu_ns=0):
        self.wall_ns += wall_ns
        self.cpu_ns += cpu_ns


@pytest.fixture
def fake(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_wall_and_cpu_time_of_a_call_are_separate(fake):
    elapsed = timing.timed(lambda: fake.work(300, 700))
    assert (elapsed.wall_ns, elapsed.cpu_ns) == (300, 700)


def test_an_error_of_the_call_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        timing.timed(lambda: 1 / 0)


def test_a_distribution_is_in_milliseconds():
    latencies = Distribution.of([1_000_000, 2_000_000, 3_000_000, 10_000_000])
    assert (latencies.count, latencies.mean_ms, latencies.p50_ms, latencies.min_ms, latencies.max_ms) == (
        4,
        4.0,
        2.5,
        1.0,
        10.0,
    )
    assert latencies.p90_ms == pytest.approx(7.9)
    assert latencies.p99_ms == pytest.approx(9.79)
    assert latencies.mad_ms == pytest.approx(1.0)


@SEEDED
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50))
def test_the_figures_of_a_distribution_are_ordered(nanoseconds):
    latencies = Distribution.of(nanoseconds)
    ordered = [latencies.min_ms, latencies.p50_ms, latencies.p90_ms, latencies.p99_ms, latencies.max_ms]
    assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(ordered))
    assert latencies.count == len(nanoseconds)
    assert 0 <= latencies.mad_ms <= latencies.max_ms - latencies.min_ms + 1e-9
    assert all(type(value) is float for value in (*ordered, latencies.mean_ms, latencies.mad_ms))


def test_a_single_run_has_no_spread():
    latencies = Distribution.of([2_000_000])
    assert (latencies.p50_ms, latencies.p99_ms, latencies.mad_ms) == (2.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("walls", "steady"),
    [
        ([100] * 19, False),
        ([100] * 20, True),
        ([200] * 10 + [100] * 10, False),
        ([104] * 10 + [100] * 10, True),
        ([94] * 10 + [100] * 10, False),
        ([1000] * 30 + [100] * 20, True),
        ([100] * 9 + [5000] + [100] * 10, True),
        ([], False),
    ],
)
def test_runs_are_steady_when_two_windows_have_nearly_the_same_median(walls, steady):
    assert timing.is_steady(walls) is steady


def test_warm_up_stops_as_soon_as_runs_are_steady(fake):
    assert timing.warm_up(lambda: fake.work(1000), max_seconds=1) == 20


def test_warm_up_continues_while_runs_get_faster(fake):
    walls = iter([*np.linspace(10_000, 1000, 60).astype(int), *[1000] * 40])
    runs = timing.warm_up(lambda: fake.work(int(next(walls))), max_seconds=1)
    assert 60 < runs <= 90


def test_warm_up_ends_at_its_time_limit(fake):
    assert timing.warm_up(lambda: fake.work(400_000_000), max_seconds=1) == 3


def test_warm_up_ends_at_its_limit_of_runs(fake):
    walls = (2**index for index in range(100))
    assert timing.warm_up(lambda: fake.work(next(walls)), max_seconds=1e9, max_runs=25) == 25


def test_warm_up_without_time_still_runs_once(fake):
    assert timing.warm_up(lambda: fake.work(1), max_seconds=0) == 1


def test_measuring_continues_until_there_are_enough_runs(fake):
    walls, cpus = timing.measure(lambda: fake.work(5000, 9000), min_seconds=0, max_seconds=0, min_runs=7)
    assert list(walls) == [5000] * 7
    assert list(cpus) == [9000] * 7


def test_measuring_continues_for_the_minimum_time(fake):
    walls, cpus = timing.measure(lambda: fake.work(250_000_000), min_seconds=1, max_seconds=1, min_runs=2)
    assert len(walls) == len(cpus) == 4


def test_a_median_is_stable_when_its_interval_is_narrow():
    assert not timing.is_median_stable([1000] * 3)  # too few values
    assert timing.is_median_stable([1000] * 50)
    assert not timing.is_median_stable([1000, 1100] * 25)
    assert timing.is_median_stable([1000, 1005] * 25)
    assert timing.is_median_stable([*[1000] * 90, *[9000] * 10])  # regardless of the slow runs


@SEEDED
@given(st.integers(0, 2**32 - 1))
def test_the_interval_is_that_of_the_order_statistics(seed):
    """A median of 1000 with a standard deviation of 500 needs thousands of samples for an interval of 1 %."""
    values = np.random.default_rng(seed).normal(1000, 500, 20_000)
    assert not timing.is_median_stable(values[:200])
    assert timing.is_median_stable(values, within=0.03)


def test_an_unstable_median_is_measured_for_longer_up_to_the_limit(fake):
    steps = itertools.cycle([1_000_000, 2_000_000])
    walls, _ = timing.measure(lambda: fake.work(next(steps)), min_seconds=0.1, max_seconds=0.4, min_runs=5)
    assert sum(walls) == pytest.approx(0.4e9, rel=0.01)
    walls, _ = timing.measure(lambda: fake.work(1_000_000), min_seconds=0.1, max_seconds=0.4, min_runs=5)
    assert sum(walls) == pytest.approx(0.1e9, rel=0.02)


def test_measuring_ends_when_the_median_becomes_stable(fake):
    steps = iter([2_000_000, 1_000_000] * 67 + [1_000_000] * 10_000)
    walls, _ = timing.measure(lambda: fake.work(next(steps)), min_seconds=0.2, max_seconds=10, min_runs=5)
    assert 0.2e9 < sum(walls) < 1e9
