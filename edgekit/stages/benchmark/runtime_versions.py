"""Counts the instructions of the same artifacts under several versions of their runtime, on an emulated core.

Counts do not depend on this machine's load, so that a difference of a few tenths of a percent between two versions is
a difference of the versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from edgekit.config.device_profile import DeviceProfile
from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.environment.bounded_files import available_memory_bytes
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent, StartEvent
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.runtime_versions import RuntimeVersion, RuntimeVersions, runtime_versions_file
from edgekit.core.units import format_count
from edgekit.devices.emulation import emulator, pins
from edgekit.stages.benchmark import operator_costs
from edgekit.stages.benchmark.emulated_bench import EmulationOptions
from edgekit.stages.concurrency import default_parallelism, run_concurrently
from edgekit.stages.context import Context


@dataclass(frozen=True)
class VersionComparison:
    """The counts of one artifact.

    Attributes:
        artifact: The artifact.
        record: The counts under each version.
    """

    artifact: Artifact
    record: RuntimeVersions


def versions_by_runtime(requirements: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sort the versions that a user names by runtime.

    Args:
        requirements: Packages with a version, such as `onnxruntime==1.31.0`.

    Returns:
        Runtime -> its versions. A single version comes after the one that edgekit pins.

    Raises:
        InputError: One is no package with a version, or its version cannot be chosen, or there is nothing to compare.
    """
    named: dict[str, list[str]] = {}
    for requirement in dict.fromkeys(requirements):
        named.setdefault(pins.runtime_of(requirement), []).append(requirement)
    for runtime, versions in named.items():
        pin = pins.pinned(runtime)
        if len(versions) == 1 and pin is not None:
            named[runtime] = [pin, *versions]
        if len(set(named[runtime])) == 1:
            raise InputError(f"{versions[0]} is the version that is used anyway; name another one to compare it with")
    return {runtime: tuple(versions) for runtime, versions in named.items()}


def compare_versions(
    context: Context,
    artifacts: Sequence[Artifact],
    devices: Sequence[tuple[str, DeviceProfile | None]],
    requirements: Sequence[str],
    options: EmulationOptions,
) -> tuple[VersionComparison, ...]:
    """Count each artifact under each version of its runtime, and write runtime-versions-<device>.json.

    Artifacts that run in parallel share the environments. An artifact of another runtime is skipped with a note.

    Args:
        context: The project and its workers; artifacts that a version does not run go to its failures.
        artifacts: The artifacts.
        devices: Pairs of name and profile, as returned by `load_devices`.
        requirements: Packages with a version.
        options: The options of the emulated tier.

    Returns:
        The comparisons that succeeded.

    Raises:
        InputError: No artifact has one of these runtimes, a device cannot be emulated, or a version is invalid.
        MissingDependency: The emulation of a device is not set up.
        StepError: A version cannot be downloaded, or does not run a one-operator model.
    """
    versions = versions_by_runtime(requirements)
    fitting = [artifact for artifact in artifacts if artifact.manifest.runtime in versions]
    if not fitting:
        raise InputError(f"none of these artifacts runs on {' or '.join(versions)}")
    for artifact in artifacts:
        if artifact not in fitting:
            reason = f"skipped: no version of {artifact.manifest.runtime} was named"
            context.emit(NoteEvent(f"bench {artifact.label}", reason))
    jobs: list[tuple[Artifact, tuple[tuple[str, emulator.Guest], ...]]] = []
    for device, profile in devices:
        if profile is None:
            raise InputError("versions of a runtime are compared on an emulated core", parameters=("device",))
        guest = emulator.open_guest(device, profile)
        used = dict.fromkeys(artifact.manifest.runtime for artifact in fitting)
        guests = {runtime: _guests(context, guest, versions[runtime]) for runtime in used}
        jobs += [(artifact, guests[artifact.manifest.runtime]) for artifact in fitting]

    def compare(artifact: Artifact, guests: tuple[tuple[str, emulator.Guest], ...]) -> RuntimeVersions:
        context.emit(StartEvent(_step_name(artifact, guests)))
        return _compare(context, artifact, guests, options)

    results: list[RuntimeVersions | None] = [None] * len(jobs)
    work = [partial(compare, *job) for job in jobs]
    for number, future in run_concurrently(work, default_parallelism(available_memory_bytes()), context.pool.stop):
        results[number] = context.settle(_step_name(*jobs[number]), future.result, summary)
    return tuple(
        VersionComparison(artifact, record)
        for (artifact, _), record in zip(jobs, results, strict=True)
        if record is not None
    )


def _step_name(artifact: Artifact, guests: tuple[tuple[str, emulator.Guest], ...]) -> str:
    return f"compare versions of {artifact.manifest.runtime} for {artifact.label} on {guests[0][1].name}"


def _guests(
    context: Context, guest: emulator.Guest, requirements: Sequence[str]
) -> tuple[tuple[str, emulator.Guest], ...]:
    """Set up the environment of each version; one after another, since they share folders."""

    def say(text: str) -> None:
        context.emit(NoteEvent(f"set up {guest.name}", text))

    return tuple((requirement, emulator.with_runtime(guest, requirement, say)) for requirement in requirements)


def _compare(
    context: Context,
    artifact: Artifact,
    guests: Sequence[tuple[str, emulator.Guest]],
    options: EmulationOptions,
) -> RuntimeVersions:
    device, profile = guests[0][1].name, guests[0][1].profile
    threads = options.threads or profile.run.threads
    by_operator = options.per_op and not operator_costs.unsupported_reason(artifact)

    def measure(requirement: str, guest: emulator.Guest) -> EmulatedLatency:
        step = f"emulate {artifact.label} on {device} with {requirement}"
        latency = emulator.emulate(guest, ModelFiles.of(artifact), threads, step, options.timeout_s)
        if not by_operator:
            return latency
        costs = operator_costs.operator_costs(context, guest, artifact, threads, step, options.timeout_s)
        return replace(latency, operators=costs)

    measured = tuple(RuntimeVersion(requirement, measure(requirement, guest)) for requirement, guest in guests)
    record = RuntimeVersions(artifact.manifest.sha256, device, measured)
    write_json(artifact.folder / runtime_versions_file(device), asdict(record))
    return record


def summary(record: RuntimeVersions) -> str:
    """Return the record in one line."""
    first, *others = record.versions
    texts = [f"{format_count(first.instructions)} instructions with {first.requirement}"]
    texts += [f"{100 * record.growth(version):+.2f} % with {version.requirement}" for version in others]
    return ", ".join(texts)
