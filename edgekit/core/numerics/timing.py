"""The one clock. Runtimes never time themselves; they are called from here."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

NS_PER_MS = 1e6


@dataclass(frozen=True)
class Stopwatch:
    """Elapsed wall and CPU time (of all threads of this process) of one call, in nanoseconds."""

    wall_ns: int
    cpu_ns: int


def timed(call: Callable[[], object]) -> Stopwatch:
    """Runs the call once."""
    cpu = time.process_time_ns()
    wall = time.perf_counter_ns()
    call()
    return Stopwatch(time.perf_counter_ns() - wall, time.process_time_ns() - cpu)


@dataclass(frozen=True)
class Distribution:
    """Latencies of many inferences in milliseconds. `mad_ms` is the median absolute deviation from the median."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    mad_ms: float

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Distribution:
        """Of at least one sample; percentiles by linear interpolation."""
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


def is_steady(walls_ns: Sequence[int], window: int = 10, within: float = 0.05) -> bool:
    """Whether the medians of the last two windows differ by less than `within` of the later one."""
    if len(walls_ns) < 2 * window:
        return False
    earlier = float(np.median(walls_ns[-2 * window : -window]))
    later = float(np.median(walls_ns[-window:]))
    return abs(earlier - later) <= within * later


def warm_up(call: Callable[[], object], *, max_seconds: float, max_runs: int = 10_000) -> int:
    """Runs the call until it is steady, or until time or runs are used up; the number of runs."""
    deadline = time.perf_counter_ns() + int(max_seconds * 1e9)
    walls: list[int] = []
    while len(walls) < max_runs and not is_steady(walls):
        walls.append(timed(call).wall_ns)
        if time.perf_counter_ns() >= deadline:
            break
    return len(walls)


def is_median_stable(walls_ns: Sequence[int], within: float = 0.01) -> bool:
    """Whether the 95 % confidence interval of the median reaches no further than `within` of it to either side.

    By order statistics, whatever the distribution: the interval lies between the ranks (n -+ 1.96 sqrt(n)) / 2.
    """
    values, count = np.sort(np.asarray(walls_ns)), len(walls_ns)
    half = 0.98 * count**0.5
    low, high = int(count / 2 - half), int(np.ceil(count / 2 + half))
    if low < 0 or high >= count:
        return False
    median = float(np.median(values))
    return bool(median - values[low] <= within * median and values[high] - median <= within * median)


def measure(
    call: Callable[[], object], *, min_seconds: float, max_seconds: float, min_runs: int
) -> tuple[array[int], array[int]]:
    """Runs the call at least `min_runs` times and for at least `min_seconds`, and then on until the median is sure, at
    most for `max_seconds` in all; wall and CPU time of each, in ns.

    Packed arrays: a million runs of a tiny model must not weigh on the memory and the caches that they share.
    """
    started = time.perf_counter_ns()
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
        until = min(last, until + max(1, until - started))
