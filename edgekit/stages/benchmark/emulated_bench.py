"""The emulated tier of a bench: counts instructions on emulated cores, several artifacts in parallel.

Instruction counts do not depend on the load of this machine, so runs need not be exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.environment.bounded_files import available_memory_bytes
from edgekit.core.events import StartEvent
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulationRecord, emulation_file
from edgekit.core.units import format_count, format_ms
from edgekit.devices.emulation import emulator
from edgekit.stages.benchmark import operator_costs
from edgekit.stages.concurrency import default_parallelism, run_concurrently
from edgekit.stages.context import Context


@dataclass(frozen=True)
class EmulationOptions:
    """The options of the emulated tier.

    Attributes:
        threads: The number of threads; None for the profile's.
        per_op: Whether to add the cost of each operator, for formats that can be truncated.
        timeout_s: The time-out of one emulated run in seconds.
    """

    threads: int | None = None
    per_op: bool = False
    timeout_s: float = emulator.TIMEOUT_S


def step_name(artifact: Artifact, device: str) -> str:
    """Return the name of an emulation step, such as `emulate simple_cnn/keras tflite:int8 on raspberry-pi-4b`."""
    return f"emulate {artifact.label} on {device}"


def emulate_one(
    context: Context, artifact: Artifact, guest: emulator.Guest, options: EmulationOptions
) -> EmulationRecord:
    """Count the instructions of one inference on an emulated core and write emulated-<device>.json.

    Args:
        context: The project and its workers.
        artifact: The artifact.
        guest: The emulated device.
        options: The options of the emulated tier.

    Returns:
        The record that was written.

    Raises:
        InputError: The runtime is not available on emulated cores.
        MissingDependency: The emulation is not set up.
        StepError: The emulated process fails or exceeds its time-out.
    """
    step, threads = step_name(artifact, guest.name), options.threads or guest.profile.run.threads
    latency = emulator.emulate(guest, ModelFiles.of(artifact), threads, step, options.timeout_s)
    if options.per_op and not operator_costs.unsupported_reason(artifact):
        costs = operator_costs.operator_costs(context, guest, artifact, threads, step, options.timeout_s)
        latency = replace(latency, operators=costs)
    record = EmulationRecord(artifact.manifest.sha256, guest.name, latency)
    write_json(artifact.folder / emulation_file(guest.name), asdict(record))
    return record


def emulate_all(
    context: Context, pairs: Sequence[tuple[Artifact, emulator.Guest]], options: EmulationOptions
) -> list[EmulationRecord | None]:
    """Run `emulate_one` on several pairs in parallel.

    Args:
        context: The project and its workers; runs that fail go to its failures.
        pairs: Artifacts and the emulated devices to run them on.
        options: The options of the emulated tier.

    Returns:
        One record for each pair, in order; None for a run that failed.
    """

    def emulate(artifact: Artifact, guest: emulator.Guest) -> EmulationRecord:
        context.emit(StartEvent(step_name(artifact, guest.name)))
        return emulate_one(context, artifact, guest, options)

    records: list[EmulationRecord | None] = [None] * len(pairs)
    work = [partial(emulate, artifact, guest) for artifact, guest in pairs]
    for number, future in run_concurrently(work, default_parallelism(available_memory_bytes()), context.pool.stop):
        artifact, guest = pairs[number]
        records[number] = context.settle(step_name(artifact, guest.name), future.result, summary)
    return records


def summary(record: EmulationRecord) -> str:
    """Return the record in one line."""
    latency = record.emulated
    instructions = format_count(latency.counts.instructions)
    return f"{instructions} instructions, {format_ms(latency.latency_ms)} (emulated, {latency.remark})"
