"""The record `bench-<device>.json` beside an artifact: its measurement under one device profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.browser_figures import BrowserFigures
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.specs import Variant
from edgekit.core.values.tiers import TierName
from edgekit.core.values.typed_json import Count, FileName, Milliseconds, Name, PositiveCount, Sha256

BENCH_SCHEMA = 2

# The keys that had another name in older versions.
_OLDER = {1: {"how": "tag"}}


@dataclass(frozen=True)
class Execution:
    """What an executor beside the host and the emulated core measured. Times in ms.

    Attributes:
        executor: The executor's name.
        tier: What its figure is worth.
        description: The machine that it ran on.
        latency_ms: The latency of one inference.
        low_ms: The lower end of its interval, or None.
        high_ms: The upper end of its interval, or None.
        threads: The number of threads.
        wall: The distribution of the wall-clock times, or None.
        load_ms: The time to load the model, or None.
        peak_memory_bytes: The peak of the memory while it ran, or None.
        notes: Remarks for the user.
        operators: The cost of each operator, if it was measured.
        browser: What ran in a browser, and what is transferred to it; None elsewhere.
    """

    executor: FileName
    tier: TierName
    description: Name
    latency_ms: Milliseconds
    low_ms: Milliseconds | None
    high_ms: Milliseconds | None
    threads: PositiveCount
    wall: Distribution | None = None
    load_ms: Milliseconds | None = None
    peak_memory_bytes: Count | None = None
    notes: tuple[str, ...] = ()
    operators: tuple[OperatorCost, ...] = ()
    browser: BrowserFigures | None = None


@dataclass(frozen=True)
class Measurement:
    """The content of `bench-<device>.json`: one artifact under one device profile.

    Attributes:
        model: The model's name.
        kind: The kind of its source.
        target: The artifact's target.
        precision: The artifact's precision.
        artifact_sha256: The sha256 of the artifact that was measured.
        device: The name of the device profile, or `host`.
        runtime: The runtime that ran it.
        size_bytes: The size of the model files.
        compressed_bytes: Their size after compression.
        latency_ms: Tier -> latency in ms: the median of `wall` for `host`, the roofline's for `analytic`, the cost
            model's for `emulated`.
        load_ms: The time to load the model, in ms.
        first_inference_ms: The time of the first inference, in ms.
        warm_up_runs: The number of inferences before the measurement.
        wall: The distribution of wall-clock times of an inference, in ms.
        cpu: The distribution of CPU times of an inference, in ms.
        threads: The number of threads.
        cpus: The cores that the process was pinned to, or None.
        host: The machine that it ran on.
        peak_memory_load_bytes: The peak memory while loading, above that of the process with the runtime's library
            loaded; None where it cannot be measured.
        peak_memory_run_bytes: The same while running.
        macs: Multiply-accumulates of one inference, if they are known.
        weight_bytes: The size of all weights, if it is known.
        notes: What a reader of the values has to know.
        emulated: The measurement on the device's emulated core.
        tag: The tag of the variant, such as `tuned`.
        kinds: Operator kind -> the number of such operators in the file.
        operators: The cost of each operator from this host's profiler.
        executions: What further executors measured.
        schema_version: The version of the file's format.
    """

    model: FileName
    kind: FileName
    target: FileName
    precision: FileName
    artifact_sha256: Sha256
    device: FileName
    runtime: FileName
    size_bytes: Count
    compressed_bytes: Count
    latency_ms: Mapping[TierName, Milliseconds]
    load_ms: Milliseconds
    first_inference_ms: Milliseconds
    warm_up_runs: Count
    wall: Distribution
    cpu: Distribution
    threads: PositiveCount
    cpus: tuple[Count, ...] | None
    host: Name
    peak_memory_load_bytes: Count | None
    peak_memory_run_bytes: Count | None
    macs: Count | None
    weight_bytes: Count | None
    notes: tuple[str, ...] = ()
    emulated: EmulatedLatency | None = None
    tag: Name = ""
    kinds: Mapping[Name, Count] = field(default_factory=dict)
    operators: tuple[OperatorCost, ...] = ()
    executions: tuple[Execution, ...] = ()
    schema_version: int = BENCH_SCHEMA

    @property
    def variant(self) -> Variant:
        """The artifact's variant."""
        return Variant(self.target, self.precision, self.tag)

    def execution(self, tier: str) -> Execution | None:
        """Return what a further executor measured in a tier, or None."""
        return next((execution for execution in self.executions if execution.tier == tier), None)

    def interval_ms(self, tier: str) -> tuple[float, float] | None:
        """Return the interval of a tier's latency in ms, or None if the tier has none.

        Args:
            tier: The tier.
        """
        source = self.emulated if tier == "emulated" else self.execution(tier)
        if source is None or source.low_ms is None or source.high_ms is None:
            return None
        return source.low_ms, source.high_ms

    @property
    def peak_memory_bytes(self) -> int | None:
        """The peak memory on the device's emulated core if it was measured there, else on this host, in bytes."""
        return self.host_peak_memory_bytes if self.peak_memory_tier == "host" else self.emulated_peak_memory_bytes

    @property
    def peak_memory_tier(self) -> str:
        """The tier of `peak_memory_bytes`: `emulated` or `host`."""
        return "host" if self.emulated_peak_memory_bytes is None else "emulated"

    @property
    def operators_by_tier(self) -> dict[str, tuple[OperatorCost, ...]]:
        """Tier -> the cost of each operator, for the tiers in which it was measured, the most repeatable first."""
        emulated = () if self.emulated is None else self.emulated.operators
        others = ((execution.tier, execution.operators) for execution in self.executions)
        return {tier: items for tier, items in (("emulated", emulated), *others, ("host", self.operators)) if items}

    @property
    def emulated_peak_memory_bytes(self) -> int | None:
        """The peak memory on the device's emulated core, in bytes."""
        return self.emulated.peak_memory_bytes if self.emulated is not None else None

    @property
    def host_peak_memory_bytes(self) -> int | None:
        """The higher of the peaks of loading and of running on this host, in bytes."""
        peaks = [value for value in (self.peak_memory_load_bytes, self.peak_memory_run_bytes) if value is not None]
        return max(peaks) if peaks else None


def bench_file(device: str, runtime: str = "") -> str:
    """Return the name of the file: `bench-raspberry-pi-4b.json`, `bench-host-tflite-micro.json`.

    Args:
        device: The device's name.
        runtime: The runtime, where it is not the target's default.
    """
    return f"bench-{device}{f'-{runtime}' if runtime else ''}.json"


def load_measurement(path: Path) -> Measurement:
    """Read a `bench-<device>.json`.

    Args:
        path: The file.

    Returns:
        The record.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    return measurement_from_dict(read_json(path, "bench result"), path)


def measurement_from_dict(data: Any, path: Path) -> Measurement:
    """Decode a record.

    Args:
        data: What `dataclasses.asdict` returned, after a round trip through JSON.
        path: The file that the data came from, for error messages.

    Returns:
        The record.

    Raises:
        InputError: The data are damaged or of an unknown version.
    """
    again = "run the bench again"
    return decode_versioned(Measurement, data, path, "a bench result", again, version=BENCH_SCHEMA, older=_OLDER)
