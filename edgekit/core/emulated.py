"""What the emulated tier found out: what one inference executes on the device's core, and what that should take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

UNCALIBRATED = "uncalibrated"


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
        """From three marks: `runs` calls of nothing between the first two, `runs` inferences between the last two."""
        before, start, end = marks
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


@dataclass(frozen=True)
class Emulated:
    """Counts of one thread, and the latency that the profile's cost model predicts from them for `threads` threads.

    `low_ms` and `high_ms` enclose it by the model's error against published timings; both are None, and `calibration`
    is `uncalibrated`, where the profile has none to be fitted with.
    """

    cpu: str
    threads: int
    inferences: int
    counts: Counts
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    calibration: str

    @property
    def calibrated(self) -> bool:
        """Whether the model was fitted with timings of the device."""
        return self.calibration != UNCALIBRATED


def emulated_from_dict(data: Mapping[str, Any]) -> Emulated:
    """The inverse of `dataclasses.asdict` after a trip through JSON. Raises KeyError, TypeError."""
    return Emulated(**{**data, "counts": Counts(**data["counts"])})
