"""What the emulated tier found out: what one inference executes on the device's core, and what that should take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.records.operator_costs import JOINED, Operator, OperatorCost
from edgekit.core.records.versioned_json import decode_versioned

UNCALIBRATED = "uncalibrated"
EMULATION_SCHEMA = 1
PAGE_BYTES = 4096


def _step(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: value - before[name] for name, value in after.items()}


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
    def between(cls, marks: Sequence[Mapping[str, int]], runs: int) -> Counts:
        """From the last marks: one before and one after each of `runs` calls of nothing, then one after each of as many
        inferences.

        Instructions are those of the shortest inference: what a runtime does now and then, by the clock (ONNX Runtime
        empties statistics of its calls), comes on top of it. Misses are the mean of all but the first, which finds the
        caches as something else has left them.
        """
        steps = [_step(*pair) for pair in pairwise(marks[-(2 * runs + 1) :])]
        empty, full = steps[:runs], steps[runs:]
        shortest, calling = (min(part, key=lambda step: step["instructions"]) for part in (full, empty))
        later = list(zip(full, empty, strict=True))[min(1, runs - 1) :]
        found = {}
        for name in (item.name for item in fields(cls) if item.name in shortest):
            own = later if name.endswith("misses") else [(shortest, calling)]
            differences = [after[name] - before[name] for after, before in own]
            found[name] = max(0.0, sum(differences) / len(differences))
        return cls(**found)

    def beyond(self, other: Counts) -> Counts:
        """What it has more than the other, of each kind; never less than nothing."""
        pairs = ((item.name, getattr(self, item.name), getattr(other, item.name)) for item in fields(self))
        return Counts(**{name: max(0.0, own - less) for name, own, less in pairs if own is not None})

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
class PrefixCounts:
    """One inference of a model that ends after `operator`; None where the runtime did not take it."""

    operator: Operator
    counts: Counts | None


def costs_by_operator(
    prefixes: Sequence[PrefixCounts], latency_ms: Callable[[Counts], float]
) -> tuple[OperatorCost, ...]:
    """What each operator adds to the one before it, in the order of computation; all instructions together are those of
    the whole inference, and of misses there may be some more.

    A prefix that takes less instructions than a shorter one is what a runtime does to operators that it fuses, once it
    sees them all: these stand together, as do operators between which it cannot be cut. The call itself counts to the
    first.
    """
    kept: list[tuple[list[Operator], Counts]] = []
    waiting: list[Operator] = []
    for prefix in prefixes:
        waiting.append(prefix.operator)
        if prefix.counts is None:
            continue
        while kept and prefix.counts.instructions < kept[-1][1].instructions:
            waiting = [*kept.pop()[0], *waiting]
        kept.append((waiting, prefix.counts))
        waiting = []
    found: list[OperatorCost] = []
    before: Counts | None = None
    for operators, counts in kept:
        own = counts if before is None else counts.beyond(before)
        kind = JOINED.join(operator.kind for operator in operators)
        figures = (latency_ms(own), own.instructions, own.memory_misses)
        found.append(OperatorCost(kind, operators[-1].name, *figures))
        before = counts
    return tuple(found)


@dataclass(frozen=True)
class EmulatedLatency:
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
    operators: tuple[OperatorCost, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Whether the model was fitted with timings of the device."""
        return self.calibration != UNCALIBRATED


@dataclass(frozen=True)
class EmulationRecord:
    """What was found out about one artifact on one device's emulated core."""

    artifact_sha256: str
    device: str
    emulated: EmulatedLatency
    schema_version: int = EMULATION_SCHEMA


def emulation_file(device: str) -> str:
    """`emulated-raspberry-pi-4b.json`"""
    return f"emulated-{device}.json"


def load_emulation(path: Path) -> EmulationRecord:
    """The emulation in the file. Raises InputError when it is damaged or of another version."""
    data, keys = read_json(path, "result of an emulation"), {item.name for item in fields(EmulationRecord)}
    again = "run the bench again"
    with decode_versioned(data, path, "a result of an emulation", again, keys=keys, version=EMULATION_SCHEMA) as given:
        return EmulationRecord(**{**given, "emulated": emulated_from_dict(given["emulated"])})


def emulated_from_dict(data: Mapping[str, Any]) -> EmulatedLatency:
    """The inverse of `dataclasses.asdict` after a trip through JSON. Raises KeyError, TypeError."""
    operators = tuple(OperatorCost(**item) for item in data.get("operators", ()))
    return EmulatedLatency(**{**data, "counts": Counts(**data["counts"]), "operators": operators})
