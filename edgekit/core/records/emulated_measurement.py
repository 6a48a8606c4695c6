"""The record `emulated-<device>.json` beside an artifact: counts of one inference on a device's emulated core."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.records.operator_costs import JOINED, Operator, OperatorCost
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.units import format_ms
from edgekit.core.values.typed_json import Count, MeanCount, Milliseconds, Name, PositiveCount, Sha256

# The `calibration` of a device whose cost model was not fitted with published timings.
UNCALIBRATED = "uncalibrated"

EMULATION_SCHEMA = 1

# The page size in which the counting plugin tracks memory.
PAGE_BYTES = 4096


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, int]:
    return {name: value - before[name] for name, value in after.items() if isinstance(value, int)}


@dataclass(frozen=True)
class Counts:
    """The counts of one inference: A64 instructions by kind, and misses of a model of the core's data caches.

    Attributes:
        instructions: All instructions.
        loads: Loads to all registers.
        stores: Stores from all registers.
        branches: Branches.
        fmla: Floating-point multiply-adds.
        dot: Integer dot products and matrix products.
        simd: All other vector and floating-point arithmetic.
        other: All other instructions.
        l1_misses: Misses of the L1 data cache, in lines of 64 bytes; None if the core has no such cache.
        l2_misses: Misses of the L2 cache; None if the core has none.
        l3_misses: Misses of the L3 cache; None if the core has none.
    """

    instructions: MeanCount
    loads: MeanCount
    stores: MeanCount
    branches: MeanCount
    fmla: MeanCount
    dot: MeanCount
    simd: MeanCount
    other: MeanCount
    l1_misses: MeanCount | None = None
    l2_misses: MeanCount | None = None
    l3_misses: MeanCount | None = None

    @classmethod
    def between(cls, marks: Sequence[Mapping[str, Any]], runs: int) -> Counts:
        """Compute the counts of one inference from cumulative counts.

        Args:
            marks: Cumulative counts. Only the last `2 * runs + 1` are used: one before and one after each of `runs`
                empty calls, then one after each of `runs` inferences.
            runs: The number of empty calls, and of inferences.

        Returns:
            The instructions of the shortest inference and the mean misses of all inferences but the first, both without
            those of an empty call.
        """
        steps = [_differences(*pair) for pair in pairwise(marks[-(2 * runs + 1) :])]
        empty_calls, inferences = steps[:runs], steps[runs:]
        # The shortest, not the mean: a runtime does some work by the clock (ONNX Runtime empties statistics of its
        # calls), which is added to some inferences.
        shortest, shortest_call = (
            min(part, key=lambda step: step["instructions"]) for part in (inferences, empty_calls)
        )
        # Without the first inference, which finds the caches in the state that other code has left.
        warm = list(zip(inferences, empty_calls, strict=True))[min(1, runs - 1) :]
        counts = {}
        for name in (field.name for field in fields(cls) if field.name in shortest):
            pairs = warm if name.endswith("misses") else [(shortest, shortest_call)]
            differences = [inference[name] - call[name] for inference, call in pairs]
            counts[name] = max(0.0, sum(differences) / len(differences))
        return cls(**counts)

    def beyond(self, other: Counts) -> Counts:
        """Return by how much these counts exceed others.

        Args:
            other: The counts to subtract.

        Returns:
            The difference of each kind, or 0 where it is negative.
        """
        pairs = ((field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Counts(**{name: max(0.0, count - less) for name, count, less in pairs if count is not None})

    def plus(self, other: Counts, factor: float) -> Counts:
        """Add a multiple of other counts.

        Args:
            other: The counts to add.
            factor: How often they are added.

        Returns:
            The sum of each kind that both have.
        """
        pairs = ((field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Counts(**{name: a + factor * b for name, a, b in pairs if a is not None and b is not None})

    @property
    def memory_misses(self) -> float:
        """Lines of 64 bytes that are read from memory: the misses of the core's last cache; 0 without caches."""
        misses = [value for value in (self.l1_misses, self.l2_misses, self.l3_misses) if value is not None]
        return misses[-1] if misses else 0.0


@dataclass(frozen=True)
class Region:
    """One call of the runtime's thread pool, as one thread executes it.

    Attributes:
        tasks: The number of tasks, which several threads share.
        tiled: Whether the runtime cuts the work into more tasks if there are more threads.
        instructions: The instructions of all tasks.
        l1_misses: Their misses of the L1 data cache.
    """

    tasks: int
    tiled: bool
    instructions: float
    l1_misses: float

    def share(self, threads: int) -> float:
        """Return the part of the work that the thread with the most tasks does; 1 if the work cannot be divided."""
        if self.tiled:
            return 1 / threads
        return math.ceil(self.tasks / threads) / self.tasks if self.tasks else 1.0


@dataclass(frozen=True)
class CriticalPath:
    """What the longest of several threads executes in one inference: all that is not divided, and its own tasks.

    Attributes:
        regions: The parallel regions, each of which costs a hand-over to the other threads and waiting for them.
        instructions: The instructions.
        l1_misses: The misses of the L1 data cache.
    """

    regions: Count
    instructions: MeanCount
    l1_misses: MeanCount

    @classmethod
    def of(cls, counts: Counts, regions: Sequence[Region] | None, threads: int) -> CriticalPath:
        """Compute the critical path.

        Args:
            counts: What one thread executes in one inference.
            regions: The parallel regions; None if they are unknown, and all the work is taken to be divided evenly.
            threads: The number of threads.

        Returns:
            The critical path.
        """
        l1_misses = counts.l1_misses or 0.0
        if regions is None:
            return cls(0, counts.instructions / threads, l1_misses / threads)
        split = [(region, 1 - region.share(threads)) for region in regions if region.share(threads) < 1]
        return cls(
            len(split),
            max(0.0, counts.instructions - sum(saved * region.instructions for region, saved in split)),
            max(0.0, l1_misses - sum(saved * region.l1_misses for region, saved in split)),
        )

    def beyond(self, other: CriticalPath) -> CriticalPath:
        """Return by how much this path exceeds another.

        Args:
            other: The path to subtract.

        Returns:
            The difference of each figure, or 0 where it is negative.
        """
        return CriticalPath(
            max(0, self.regions - other.regions),
            max(0.0, self.instructions - other.instructions),
            max(0.0, self.l1_misses - other.l1_misses),
        )


def parse_marks(text: str) -> list[Mapping[str, Any]]:
    """Parse the file of the counting plugin.

    Args:
        text: One JSON object a line.

    Returns:
        Cumulative counts by name, and the parallel regions since the line before; one mapping a line.
    """
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def memory_misses_between(marks: Sequence[Mapping[str, Any]], index: int, runs: int) -> float:
    """Compute the lines from memory of one inference, behind further cache levels that were simulated.

    Args:
        marks: As for `Counts.between`.
        index: The number of the further levels, from 1 on.
        runs: The number of inferences.

    Returns:
        The misses of the last of these levels; the mean of all inferences but the first.
    """
    name = next((name for name in (f"l3_misses_{index}", f"l2_misses_{index}") if name in marks[-1]), None)
    warm = list(pairwise(marks[-runs:])) if runs > 1 else [(marks[-2], marks[-1])]
    return 0.0 if name is None else sum(after[name] - before[name] for before, after in warm) / len(warm)


def peak_memory_bytes(marks: list[Mapping[str, Any]]) -> int:
    """Compute the peak memory of loading and running a model.

    Args:
        marks: Cumulative counts, the first one from before the model was loaded.

    Returns:
        The peak of the data memory above the first mark, in bytes: pages of 4 KiB that were read or written and not yet
        released.
    """
    before_load, *later = marks
    peak: int = max(mark["peak_pages"] for mark in later)
    return PAGE_BYTES * max(0, peak - int(before_load["pages"]))


@dataclass(frozen=True)
class PrefixCounts:
    """The counts of a model that is truncated after an operator.

    Attributes:
        operator: The last operator of the truncated model.
        counts: The counts of one inference, or None if the runtime cannot run the truncated model.
        path: Its critical path, where there are counts.
    """

    operator: Operator
    counts: Counts | None
    path: CriticalPath | None = None


def costs_by_operator(
    prefixes: Sequence[PrefixCounts], latency_ms: Callable[[Counts, CriticalPath], float]
) -> tuple[OperatorCost, ...]:
    """Compute the cost of each operator from the counts of models that are truncated after it.

    The cost of an operator is the difference to the model that ends one operator earlier. The cost of the call belongs
    to the first operator. Operators that the runtime fuses, or between which the model cannot be truncated, have one
    common cost.

    Args:
        prefixes: The truncated models, in the order of computation.
        latency_ms: The cost model: counts and critical path -> latency in ms.

    Returns:
        The costs in the order of computation. Their instructions sum up to those of the whole inference; their misses
        may sum up to slightly more.
    """
    groups: list[tuple[list[Operator], Counts, CriticalPath]] = []
    pending: list[Operator] = []
    for prefix in prefixes:
        pending.append(prefix.operator)
        if prefix.counts is None:
            continue
        # A longer model that executes fewer instructions than a shorter one: the runtime fuses these operators once the
        # model contains all of them.
        while groups and prefix.counts.instructions < groups[-1][1].instructions:
            pending = [*groups.pop()[0], *pending]
        groups.append((pending, prefix.counts, prefix.path or CriticalPath.of(prefix.counts, None, 1)))
        pending = []
    costs: list[OperatorCost] = []
    before: tuple[Counts, CriticalPath] | None = None
    for operators, counts, path in groups:
        added, added_path = (counts, path) if before is None else (counts.beyond(before[0]), path.beyond(before[1]))
        kind = JOINED.join(operator.kind for operator in operators)
        latency = latency_ms(added, added_path)
        costs.append(OperatorCost(kind, operators[-1].name, latency, added.instructions, added.memory_misses))
        before = (counts, path)
    return tuple(costs)


@dataclass(frozen=True)
class EmulatedLatency:
    """The counts of one thread, and the latency that the device's cost model predicts from them.

    Attributes:
        cpu: The emulated core.
        threads: The number of threads that the latency is predicted for.
        inferences: The number of inferences that were counted.
        counts: The counts of one inference.
        latency_ms: The predicted latency, in ms.
        low_ms: The lower end of the interval, from errors on networks that were not fitted; None if uncalibrated.
        high_ms: The upper end of the interval; None if uncalibrated.
        calibration: The timings that the cost model was fitted with, or `uncalibrated`.
        peak_memory_bytes: The peak of the data memory above that of the process with the runtime's library loaded.
        operators: The cost of each operator, if it was asked for.
        path: What the longest thread executes; None in records of older versions.
        unlike: In what the network is unlike all that the cost model was fitted to, a phrase each.
    """

    cpu: Name
    threads: PositiveCount
    inferences: Count
    counts: Counts
    latency_ms: Milliseconds
    low_ms: Milliseconds | None
    high_ms: Milliseconds | None
    calibration: Name
    peak_memory_bytes: Count | None = None
    operators: tuple[OperatorCost, ...] = ()
    path: CriticalPath | None = None
    unlike: tuple[Name, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Whether the cost model was fitted with timings of the device."""
        return self.calibration != UNCALIBRATED

    @property
    def remark(self) -> str:
        """The interval in words, and in what the network is unlike those fitted; or that the figure is uncalibrated."""
        if self.low_ms is None or self.high_ms is None:
            return UNCALIBRATED
        interval = f"{format_ms(self.low_ms)} .. {format_ms(self.high_ms)}"
        return f"{interval}; unlike the fitted networks: {', '.join(self.unlike)}" if self.unlike else interval


@dataclass(frozen=True)
class EmulationRecord:
    """The content of `emulated-<device>.json`: one artifact on one device's emulated core.

    Attributes:
        artifact_sha256: The sha256 of the artifact that was run.
        device: The name of the device profile.
        emulated: The counts and the latency.
        schema_version: The version of the file's format.
    """

    artifact_sha256: Sha256
    device: Name
    emulated: EmulatedLatency
    schema_version: int = EMULATION_SCHEMA


def emulation_file(device: str) -> str:
    """Return the record's file name for a device, such as `emulated-raspberry-pi-4b.json`."""
    return f"emulated-{device}.json"


def load_emulation(path: Path) -> EmulationRecord:
    """Read an `emulated-<device>.json`.

    Args:
        path: The file.

    Returns:
        The record.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    data, again = read_json(path, "result of an emulation"), "run the bench again"
    return decode_versioned(EmulationRecord, data, path, "a result of an emulation", again, version=EMULATION_SCHEMA)
