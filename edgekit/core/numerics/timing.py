"""Timing of repeated calls. All runtimes but those of a browser are measured here, with the same clock."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.core.values.typed_json import Milliseconds, PositiveCount

NS_PER_MS = 1e6


@dataclass(frozen=True)
class ElapsedTime:
    """Wall and CPU time of one call in ns; CPU time is that of all threads of this process."""

    wall_ns: int
    cpu_ns: int


def timed(call: Callable[[], object]) -> ElapsedTime:
    """Time one call.

    Args:
        call: Function to call; its exceptions are passed on.

    Returns:
        Wall and CPU time in ns.
    """
    # The wall clock is read last before and first after the call, so that it does not include reading the CPU clock.
    cpu = time.process_time_ns()
    wall = time.perf_counter_ns()
    call()
    return ElapsedTime(time.perf_counter_ns() - wall, time.process_time_ns() - cpu)


@dataclass(frozen=True)
class Distribution:
    """Statistics of the latencies of many inferences, in ms.

    Attributes:
        count: Number of inferences.
        mean_ms: Arithmetic mean.
        p50_ms: Median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        min_ms: Shortest latency.
        max_ms: Longest latency.
        mad_ms: Median absolute deviation from the median, a measure of spread that ignores outliers.
    """

    count: PositiveCount
    mean_ms: Milliseconds
    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p99_ms: Milliseconds
    min_ms: Milliseconds
    max_ms: Milliseconds
    mad_ms: Milliseconds

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Distribution:
        """Compute the statistics of measured latencies.

        Args:
            nanoseconds: Latencies in ns, at least one.

        Returns:
            The statistics; percentiles are interpolated linearly.
        """
        values = np.asarray(nanoseconds, dtype=np.float64) / NS_PER_MS
        p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
        return cls(
            count=len(values),
            mean_ms=float(values.mean()),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            min_ms=float(values.min()),
            max_ms=float(values.max()),
            mad_ms=float(np.median(np.abs(values - p50))),
        )


# The median of a window of 10 ignores up to 4 interrupted runs. 5 % is loose on purpose: it only has to detect the end
# of the warm-up; `is_median_stable` ensures the precision of the result.
def is_steady(walls_ns: Sequence[int], window: int = 10, within: float = 0.05) -> bool:
    """Return whether latencies have stopped changing.

    Args:
        walls_ns: Wall times in ns, in the order of the runs.
        window: Number of runs whose medians are compared.
        within: Largest relative difference.

    Returns:
        True where the medians of the last two windows differ by at most `within` of the later one.
    """
    if len(walls_ns) < 2 * window:
        return False
    earlier = float(np.median(walls_ns[-2 * window : -window]))
    later = float(np.median(walls_ns[-window:]))
    return abs(earlier - later) <= within * later


def warm_up(call: Callable[[], object], *, max_seconds: float, max_runs: int = 10_000) -> int:
    """Repeat a call until its latency is steady.

    Args:
        call: Function to call.
        max_seconds: Time limit in s; a call that runs at that moment is completed.
        max_runs: Largest number of runs.

    Returns:
        The number of runs, at least 1.
    """
    deadline = time.perf_counter_ns() + int(max_seconds * 1e9)
    walls: list[int] = []
    while len(walls) < max_runs and not is_steady(walls):
        walls.append(timed(call).wall_ns)
        if time.perf_counter_ns() >= deadline:
            break
    return len(walls)


def is_median_stable(walls_ns: Sequence[int], within: float = 0.01) -> bool:
    """Return whether the 95 % confidence interval of the median is narrow.

    The interval lies between the order statistics of rank (n -+ 1.96 sqrt(n)) / 2, for any distribution: the number of
    values below the median is binomial with p = 1/2 (Conover, "Practical Nonparametric Statistics", 3rd edition, 1999,
    section 3.2).

    Args:
        walls_ns: Wall times in ns, in any order.
        within: Largest relative distance of the interval's ends from the median.

    Returns:
        True where both ends are within that distance; False for too few values.
    """
    values, count = np.sort(np.asarray(walls_ns)), len(walls_ns)
    half = 0.98 * count**0.5  # 1.96 standard deviations of sqrt(n) / 2
    low, high = int(count / 2 - half), int(np.ceil(count / 2 + half))
    if low < 0 or high >= count:
        return False
    median = float(np.median(values))
    return bool(median - values[low] <= within * median and values[high] - median <= within * median)


def measure(
    call: Callable[[], object], *, min_seconds: float, max_seconds: float, min_runs: int
) -> tuple[array[int], array[int]]:
    """Repeat a call and record its times until the median is stable.

    Args:
        call: Function to call.
        min_seconds: Shortest time to measure for, in s.
        max_seconds: Longest time to measure for, in s; `min_runs` takes precedence.
        min_runs: Smallest number of runs.

    Returns:
        Wall times and CPU times of all runs in ns.
    """
    started = time.perf_counter_ns()
    # Packed arrays of 8 bytes a run: a million runs of a tiny model must not displace its data from the caches.
    walls, cpus = array("q"), array("q")
    until = started + int(min_seconds * 1e9)
    last = started + int(max_seconds * 1e9)
    while True:
        while len(walls) < min_runs or time.perf_counter_ns() < until:
            run = timed(call)
            walls.append(run.wall_ns)
            cpus.append(run.cpu_ns)
        if until >= last or is_median_stable(walls):
            return walls, cpus
        # Doubling the time keeps the number of stability checks, which sort all values, logarithmic.
        until = min(last, until + max(1, until - started))
