"""What a bench found out about one artifact under one device profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.emulated_measurement import EmulatedLatency, emulated_from_dict
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.specs import Variant

BENCH_SCHEMA = 2
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
    """

    executor: str
    tier: str
    description: str
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    threads: int
    wall: Distribution | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Figures in ms and bytes. `latency_ms` is one figure a tier: the median of `wall` for `host`, a roofline for
    `analytic`, the cost model's for `emulated`. Peak memory is above what the process held once the runtime's library
    was loaded. `kinds` counts the file's operators by kind; `operators` are those of this host's profiler."""

    model: str
    kind: str
    target: str
    precision: str
    artifact_sha256: str
    device: str
    runtime: str
    size_bytes: int
    compressed_bytes: int
    latency_ms: Mapping[str, float]
    load_ms: float
    first_inference_ms: float
    warm_up_runs: int
    wall: Distribution
    cpu: Distribution
    threads: int
    cpus: tuple[int, ...] | None
    host: str
    peak_memory_load_bytes: int | None
    peak_memory_run_bytes: int | None
    macs: int | None
    weight_bytes: int | None
    notes: tuple[str, ...] = ()
    emulated: EmulatedLatency | None = None
    tag: str = ""
    kinds: Mapping[str, int] = field(default_factory=dict)
    operators: tuple[OperatorCost, ...] = ()
    executions: tuple[Execution, ...] = ()
    schema_version: int = BENCH_SCHEMA

    @property
    def variant(self) -> Variant:
        """Target and precision in one, marked where a recipe made it."""
        return Variant(self.target, self.precision, self.tag)

    @property
    def peak_memory_bytes(self) -> int | None:
        """As the device sees it where its core was emulated, else this host's."""
        return self.host_peak_memory_bytes if self.peak_memory_tier == "host" else self.emulated_peak_memory_bytes

    @property
    def peak_memory_tier(self) -> str:
        """Where `peak_memory_bytes` was found: `emulated` or `host`."""
        return "host" if self.emulated_peak_memory_bytes is None else "emulated"

    @property
    def operators_by_tier(self) -> dict[str, tuple[OperatorCost, ...]]:
        """The operators of each tier that tells them: `emulated`, `host`."""
        emulated = () if self.emulated is None else self.emulated.operators
        return {tier: items for tier, items in (("emulated", emulated), ("host", self.operators)) if items}

    @property
    def emulated_peak_memory_bytes(self) -> int | None:
        """That of the emulated process."""
        return self.emulated.peak_memory_bytes if self.emulated is not None else None

    @property
    def host_peak_memory_bytes(self) -> int | None:
        """The higher of the peaks of loading and of running on this host."""
        known = [value for value in (self.peak_memory_load_bytes, self.peak_memory_run_bytes) if value is not None]
        return max(known) if known else None


def bench_file(device: str, runtime: str = "") -> str:
    """Return the name of the file: `bench-raspberry-pi-4b.json`, `bench-host-tflite-micro.json`.

    Args:
        device: The device's name.
        runtime: The runtime, where it is not the target's default.
    """
    return f"bench-{device}{f'-{runtime}' if runtime else ''}.json"


def load_measurement(path: Path) -> Measurement:
    """The measurement in the file. Raises InputError when it is damaged or of another version."""
    return measurement_from_dict(read_json(path, "bench result"), path)


def measurement_from_dict(data: Any, path: Path) -> Measurement:
    """The inverse of `dataclasses.asdict` after a trip through JSON. Raises InputError that names the file."""
    keys = {item.name for item in fields(Measurement)}
    with decode_versioned(
        data, path, "a bench result", "run the bench again", keys=keys, version=BENCH_SCHEMA, older=_OLDER
    ) as given:
        made = {
            "wall": Distribution(**given["wall"]),
            "cpu": Distribution(**given["cpu"]),
            "cpus": None if given["cpus"] is None else tuple(given["cpus"]),
            "notes": tuple(given["notes"]),
            "operators": tuple(OperatorCost(**item) for item in given.get("operators", ())),
            "emulated": emulated_from_dict(given["emulated"]) if given.get("emulated") else None,
            "executions": tuple(_execution(item) for item in given.get("executions", ())),
        }
        return Measurement(**{**given, **made})


def _execution(data: Mapping[str, Any]) -> Execution:
    wall = Distribution(**data["wall"]) if data["wall"] else None
    return Execution(**{**data, "wall": wall, "notes": tuple(data["notes"])})
