"""What the emulated tier found out: what one inference executes on the device's core, and what that should take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

UNCALIBRATED = "uncalibrated"
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Counts:
    """One inference, on average: A64 instructions by kind, and misses of a model of the core's data caches.

    `fmla` are floating-point multiply-adds, `dot` integer dot and matrix products, `simd` all other vector and
    floating-point arithmetic; loads and stores are of all registers. A cache that the core does not have is None.
    """

    instructions: float
    loads: float
    stores: float
    branches: float
    fmla: float
    dot: float
    simd: float
    other: float
    l1_misses: float | None = None
    l2_misses: float | None = None
    l3_misses: float | None = None

    @classmethod
    def between(cls, marks: list[Mapping[str, int]], runs: int) -> Counts:
        """From the last three marks: `runs` calls of nothing between the first two of them, `runs` inferences between
        the last two."""
        before, start, end = marks[-3:]
        names = [item.name for item in fields(cls) if item.name in end]
        own = {name: (end[name] - start[name]) - (start[name] - before[name]) for name in names}
        return cls(**{name: max(0.0, value / runs) for name, value in own.items()})

    @property
    def memory_misses(self) -> float:
        """Lines of 64 bytes that come from memory: misses of the last cache that the core has; 0 without caches."""
        known = [value for value in (self.l1_misses, self.l2_misses, self.l3_misses) if value is not None]
        return known[-1] if known else 0.0


def parse_marks(text: str) -> list[Mapping[str, int]]:
    """The counting plugin's file: a JSON object a line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def peak_memory_bytes(marks: list[Mapping[str, int]]) -> int:
    """The most data memory that loading and running took above what the first mark found: pages of 4 KiB that were read
    or written, and not yet given back."""
    loaded, *later = marks
    return PAGE_BYTES * max(0, max(mark["peak_pages"] for mark in later) - loaded["pages"])


@dataclass(frozen=True)
class Emulated:
    """Counts of one thread, and the latency that the profile's cost model predicts from them for `threads` threads.

    `low_ms` and `high_ms` enclose it by the model's error against published timings; both are None, and `calibration`
    is `uncalibrated`, where the profile has none to be fitted with. The peak memory is that of data, above what the
    process held once the runtime's library was loaded.
    """

    cpu: str
    threads: int
    inferences: int
    counts: Counts
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    calibration: str
    peak_memory_bytes: int | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the model was fitted with timings of the device."""
        return self.calibration != UNCALIBRATED


def emulated_from_dict(data: Mapping[str, Any]) -> Emulated:
    """The inverse of `dataclasses.asdict` after a trip through JSON. Raises KeyError, TypeError."""
    return Emulated(**{**data, "counts": Counts(**data["counts"])})
