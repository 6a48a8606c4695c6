"""A measurement that is repeated in several processes: what one keeps, such as its addresses, differs in the next."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgekit.contracts.executor import BenchResult

PROCESSES = 3


def summarize(results: Sequence[BenchResult], notes: tuple[str, ...]) -> BenchResult:
    """Return one result for several processes.

    Args:
        results: The result of each process.
        notes: Remarks for the user.

    Returns:
        The result of the process in the middle, with the median of all latencies, their range as the interval, and the
        largest peaks of memory.
    """
    ordered = sorted(results, key=lambda result: result.latency_ms)
    latencies = [result.latency_ms for result in ordered]
    return replace(
        ordered[len(ordered) // 2],
        latency_ms=statistics.median(latencies),
        low_ms=latencies[0],
        high_ms=latencies[-1],
        peak_memory_load_bytes=_largest(result.peak_memory_load_bytes for result in results),
        peak_memory_run_bytes=_largest(result.peak_memory_run_bytes for result in results),
        notes=notes,
    )


def _largest(values: Iterator[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
