"""The emulated tier of a bench: artifacts on the emulated cores of devices, as many at once as there are cores here.

Instructions are counted, not timed: what runs beside them does not change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.events import Started
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulationRecord, emulation_file
from edgekit.core.units import format_count, format_ms
from edgekit.devices import host_machine
from edgekit.devices.emulation import emulator
from edgekit.stages.benchmark import operator_costs
from edgekit.stages.concurrency import default_parallelism, run_concurrently
from edgekit.stages.context import Context


@dataclass(frozen=True)
class EmulationOptions:
    """`threads` None: the profile's. `per_op` adds what each operator costs, where the format can be cut."""

    threads: int | None = None
    per_op: bool = False
    timeout_s: float = emulator.TIMEOUT_S


def step_name(artifact: Artifact, device: str) -> str:
    """`emulate simple_cnn/keras tflite:int8 on raspberry-pi-4b`."""
    return f"emulate {artifact.label} on {device}"


def emulate_one(
    context: Context, artifact: Artifact, guest: emulator.Guest, options: EmulationOptions
) -> EmulationRecord:
    """Counts one artifact's inference on the device's core and writes its emulated-<device>.json.

    Raises InputError for a runtime that is not emulated, MissingDependency, and StepError when the guest dies.
    """
    step, threads = step_name(artifact, guest.name), options.threads or guest.profile.run.threads
    found = emulator.emulate(guest, ModelFiles.of(artifact), threads, step, options.timeout_s)
    if options.per_op and not operator_costs.why_not_by_operator(artifact):
        each = operator_costs.operator_costs(context, guest, artifact, threads, step, options.timeout_s)
        found = replace(found, operators=each)
    emulation = EmulationRecord(artifact.manifest.sha256, guest.name, found)
    write_json(artifact.folder / emulation_file(guest.name), asdict(emulation))
    return emulation


def emulate_all(
    context: Context, pairs: Sequence[tuple[Artifact, emulator.Guest]], options: EmulationOptions
) -> list[EmulationRecord | None]:
    """Of each pair in turn what `predict_one` found; None for one that failed, which the context keeps."""

    def one(artifact: Artifact, guest: emulator.Guest) -> EmulationRecord:
        context.emit(Started(step_name(artifact, guest.name)))
        return emulate_one(context, artifact, guest, options)

    found: list[EmulationRecord | None] = [None] * len(pairs)
    work = [partial(one, artifact, guest) for artifact, guest in pairs]
    for number, future in run_concurrently(
        work, default_parallelism(host_machine.available_memory_bytes()), context.pool.stop
    ):
        artifact, guest = pairs[number]
        found[number] = context.settle(step_name(artifact, guest.name), future.result, summary)
    return found


def summary(emulation: EmulationRecord) -> str:
    """The result in a few words."""
    found = emulation.emulated
    mark = "" if found.calibrated else f", {found.calibration}"
    return f"{format_count(found.counts.instructions)} instructions, {format_ms(found.latency_ms)} (emulated{mark})"
