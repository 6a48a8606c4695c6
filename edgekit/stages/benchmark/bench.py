"""The bench stage: size, latency and memory of artifacts under a device profile, each in a pinned process."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from edgekit.config.device_profile import DeviceProfile, load_profile
from edgekit.contracts.executor import (
    EXECUTORS,
    BenchRequest,
    BenchResult,
    ExecutionSession,
    ModelFiles,
    Place,
    PreparedBench,
)
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.environment.project import Project
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.events import Noted, Started
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.measurement import Execution, Measurement, bench_file
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.specs import HOST, ModelDescription, Variant
from edgekit.core.values.tiers import find_tier
from edgekit.devices import host_machine
from edgekit.devices.cost_models import microcontroller, roofline
from edgekit.devices.emulation import emulator, pins
from edgekit.stages.benchmark import operator_costs
from edgekit.stages.benchmark.device_fit import why_exceeds_device
from edgekit.stages.benchmark.emulated_bench import EmulationOptions, emulate_all
from edgekit.stages.concurrency import default_parallelism, run_concurrently
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe
from edgekit.workers.measurement_lock import MeasurementLock

_lock = MeasurementLock()


@dataclass(frozen=True)
class BenchOptions:
    """`threads` None: the profile's, else 1. Durations in seconds; the emulation has a time-out of its own.
    `per_op` asks for each operator too."""

    threads: int | None = None
    min_duration_s: float = 0.25
    min_runs: int = 50
    warm_up_max_s: float = 3.0
    timeout_s: float = 300.0
    emulated: bool = False
    runtime: str = ""
    executors: tuple[str, ...] = ()
    emulated_timeout_s: float = emulator.TIMEOUT_S
    per_op: bool = False

    @property
    def request(self) -> BenchRequest:
        """The part that executors read."""
        return BenchRequest(
            self.threads, self.min_duration_s, self.min_runs, self.warm_up_max_s, self.timeout_s, self.per_op
        )

    @property
    def prediction(self) -> EmulationOptions:
        """What of it is about the emulated tier."""
        return EmulationOptions(self.threads, self.per_op, self.emulated_timeout_s)


def load_devices(project: Project, names: Sequence[str]) -> tuple[tuple[str, DeviceProfile | None], ...]:
    """Return the devices that a user names, with their profiles.

    Args:
        project: The project.
        names: Names of devices, or `all`; none stands for this host without a profile.

    Returns:
        Pairs of name and profile.

    Raises:
        InputError: A device is unknown, or a profile is invalid.
    """
    files = project.device_files()
    selected = tuple(files) if "all" in names else names
    for name in selected:
        if name not in files:
            raise unknown_name("device", name, [*files, "all"])
    return tuple((name, load_profile(files[name])) for name in selected) or ((HOST, None),)


def step_name(artifact: Artifact, device: str) -> str:
    """`bench simple_cnn/keras tflite:int8 on raspberry-pi-4b`."""
    return f"bench {artifact.label} on {device}"


def compressed_bytes(path: Path) -> int:
    """The size under gzip -9: what a download or an app bundle carries."""
    return len(gzip.compress(path.read_bytes(), compresslevel=9, mtime=0))


def _latencies(
    profile: DeviceProfile | None, artifact: Artifact, description: ModelDescription, host_ms: float
) -> tuple[dict[str, float], list[str]]:
    """One figure a tier, and why a tier has none."""
    latencies = {"host": host_ms}
    if profile is None:
        return latencies, []
    made = microcontroller.estimate_latency(
        profile, artifact.manifest.precision, description.macs, description.mac_outputs
    )
    if made is not None:
        return {**latencies, "analytic": made.latency_ms}, [f"analytic: {made.text}"]
    bound = roofline.roofline(
        profile,
        artifact.manifest.precision,
        macs=description.macs,
        weight_bytes=description.weight_bytes,
        threads=profile.run.threads,
    )
    if bound.latency_ms is None:
        return latencies, [f"no analytic figure: {bound.reason}"]
    rate = "the instruction set's rate, the core's is not published" if bound.assumed else "the profile's rate"
    return {**latencies, "analytic": bound.latency_ms}, [f"analytic: {bound.bound_by}-bound, at {rate}"]


def _why_not_emulated(artifact: Artifact, profile: DeviceProfile | None, options: BenchOptions) -> str:
    """Why there is no emulated figure where one was asked for."""
    if not options.emulated or profile is None or profile.emulation is None or emulates(artifact):
        return ""
    return f"no emulated figure: the emulated core does not run {artifact.manifest.runtime}"


def emulates(artifact: Artifact) -> bool:
    """Whether its runtime runs on emulated cores."""
    return artifact.manifest.runtime in pins.RUNTIMES


def _missing_operator_notes(artifact: Artifact, emulated: EmulatedLatency | None, options: BenchOptions) -> list[str]:
    """Which tier does not tell the operators apart, and why."""
    if not options.per_op:
        return []
    runtime = RUNTIMES.load(artifact.manifest.runtime)
    notes = [] if runtime.profiles else [f"no host time by operator: {runtime.title} for Python has no profiler"]
    uncut = "" if emulated is None else operator_costs.why_not_by_operator(artifact)
    return [*notes, *([f"no emulated figures by operator: {uncut}"] if uncut else [])]


def bench_one(
    context: Context,
    artifact: Artifact,
    device: str,
    profile: DeviceProfile | None,
    options: BenchOptions,
    emulated: EmulatedLatency | None = None,
) -> Measurement:
    """Measures one artifact and writes its bench-<device>.json, with the emulated tier where that was found before.

    Raises InputError when the artifact is damaged, MissingDependency, StepError when its process does not survive it.
    """
    step = step_name(artifact, device)
    manifest = artifact.manifest
    place, session = Place(device, profile), ExecutionSession(step, context.pool)
    other_runtime = options.runtime if options.runtime != manifest.runtime else ""
    with contextlib.ExitStack() as prepared:
        with _lock.preparing():
            model = ModelFiles.of(artifact, options.runtime)
            description = describe(context, manifest.target, artifact.path, step)
            compressed = sum(map(compressed_bytes, artifact.paths))
            measuring = EXECUTORS.load(HOST).prepare(session, model, place, options.request)
            host_bench = prepared.enter_context(measuring)
        host = _run_alone(context, host_bench, step)
    executions = _execute_elsewhere(context, session, model, place, options)
    latency_ms, notes = _latencies(profile, artifact, description, host.latency_ms)
    operator_notes = _missing_operator_notes(artifact, emulated, options)
    for note in operator_notes:
        context.emit(Noted(step, note))
    notes += [_why_not_emulated(artifact, profile, options), *operator_notes]
    if emulated is not None:
        latency_ms = {**latency_ms, "emulated": emulated.latency_ms}
    latency_ms = {**{execution.tier: execution.latency_ms for execution in executions}, **latency_ms}
    assert host.wall is not None and host.cpu is not None and host.load_ms is not None  # the host measures all of it
    measurement = Measurement(
        model=manifest.model,
        kind=manifest.source["kind"],
        target=manifest.target,
        precision=manifest.precision,
        artifact_sha256=manifest.sha256,
        device=device,
        runtime=model.runtime,
        size_bytes=manifest.size_bytes,
        compressed_bytes=compressed,
        latency_ms=latency_ms,
        load_ms=host.load_ms,
        first_inference_ms=host.first_inference_ms or 0.0,
        warm_up_runs=host.warm_up_runs or 0,
        wall=host.wall,
        cpu=host.cpu,
        threads=host.threads,
        cpus=host.cpus,
        host=host.description,
        peak_memory_load_bytes=host.peak_memory_load_bytes,
        peak_memory_run_bytes=host.peak_memory_run_bytes,
        macs=description.macs,
        weight_bytes=description.weight_bytes,
        notes=tuple(note for note in (*host.notes, *notes) if note),
        emulated=emulated,
        tag=manifest.variant.tag,
        kinds={op.name: op.count for op in description.ops},
        operators=host.operators,
        executions=executions,
    )
    write_json(artifact.folder / bench_file(device, other_runtime), asdict(measurement))
    return measurement


def _run_alone(context: Context, prepared: PreparedBench, step: str) -> BenchResult:
    """Measure while nothing else measures or prepares; the time spent waiting is no part of the step's own."""
    waiting = time.perf_counter()
    with _lock.measuring():
        waited_s = time.perf_counter() - waiting
        result = prepared.run()
    context.pool.cpu_wait_s[step] = context.pool.cpu_wait_s.get(step, 0.0) + waited_s
    return result


def _execute_elsewhere(
    context: Context, session: ExecutionSession, model: ModelFiles, place: Place, options: BenchOptions
) -> tuple[Execution, ...]:
    """What the executors measure that were named beside the host; one that does not run the model is noted."""
    executions = []
    for name in options.executors:
        executor = EXECUTORS.load(name)
        reason = executor.refusal(model.runtime, place)
        if reason:
            context.emit(Noted(session.step, f"no figure of {name}: {reason}", warning=True))
            continue
        require(executor.requires, f"the executor {name}")
        with executor.prepare(session, model, place, options.request) as prepared:
            result = _run_alone(context, prepared, session.step) if executor.exclusive else prepared.run()
        executions.append(
            Execution(
                executor=name,
                tier=executor.tier,
                description=result.description,
                latency_ms=result.latency_ms,
                low_ms=result.low_ms,
                high_ms=result.high_ms,
                threads=result.threads,
                wall=result.wall,
                load_ms=result.load_ms,
                peak_memory_bytes=result.peak_memory_run_bytes,
                notes=result.notes,
            )
        )
    return tuple(executions)


def bench(
    context: Context,
    artifacts: Sequence[Artifact],
    devices: Sequence[tuple[str, DeviceProfile | None]],
    options: BenchOptions,
) -> tuple[Measurement, ...]:
    """Measures each artifact under each profile, one after another, while the next ones get ready together; what is
    emulated is emulated before, several at once. What a device does not run is noted and left out.

    Raises InputError when no artifact runs on any of the devices, MissingDependency when one is to be emulated and is
    not set up.
    """
    guests = _guests(devices) if options.emulated else {}
    fitting = [
        (artifact, device, profile)
        for device, profile in devices
        for artifact in artifacts
        if _fits(context, artifact, device, profile)
    ]
    if not fitting:
        raise InputError(f"none of these artifacts runs on {', '.join(name for name, _ in devices)}")
    counted = [(artifact, device) for artifact, device, _ in fitting if device in guests and emulates(artifact)]
    found = emulate_all(context, [(artifact, guests[device]) for artifact, device in counted], options.prediction)
    emulations = {(artifact.folder, device): item for (artifact, device), item in zip(counted, found, strict=True)}
    left = [
        item for item in fitting if emulations.get((item[0].folder, item[1]), item) is not None
    ]  # failures are told

    def one(artifact: Artifact, device: str, profile: DeviceProfile | None) -> Measurement:
        context.emit(Started(step_name(artifact, device)))
        emulation = emulations.get((artifact.folder, device))
        emulated = None if emulation is None else emulation.emulated
        return bench_one(context, artifact, device, profile, options, emulated)

    measured: list[Measurement | None] = [None] * len(left)
    work = [partial(one, *item) for item in left]
    for number, future in run_concurrently(
        work, default_parallelism(host_machine.available_memory_bytes()), context.pool.stop
    ):
        artifact, device, _ = left[number]
        measured[number] = context.settle(step_name(artifact, device), future.result, summary)
    done = [item for item in measured if item is not None]
    _warn_of_losses(context, done)
    return tuple(done)


def _fits(context: Context, artifact: Artifact, device: str, profile: DeviceProfile | None) -> bool:
    """Whether the device runs it; if not, it is told why."""
    refusal = profile.refuses(artifact.manifest.target, artifact.manifest.precision) if profile else None
    if refusal:
        context.emit(Noted(step_name(artifact, device), f"left out: {device} {refusal}"))
        return False
    narrow = why_exceeds_device(context, artifact, profile)
    if narrow:
        context.emit(Noted(step_name(artifact, device), f"left out: {narrow}", warning=True))
    return not narrow


def _guests(devices: Sequence[tuple[str, DeviceProfile | None]]) -> dict[str, emulator.Guest]:
    """The emulation of each device that has one: of several, those that do not are measured without."""
    named = [(device, profile) for device, profile in devices if profile is not None]
    if not named:
        raise InputError("the emulated tier needs a device; pass --device NAME")
    able = [(device, profile) for device, profile in named if profile.emulation or len(named) == 1]
    return {device: emulator.open_guest(device, profile) for device, profile in able}


def _warn_of_losses(context: Context, done: Sequence[Measurement]) -> None:
    """Says so where a quantized artifact is larger, or slower on this host, than the float32 one beside it."""
    measurements = {(item.model, item.kind, item.variant, item.device): item for item in done}
    for item in done:
        reference = measurements.get((item.model, item.kind, Variant(item.target, "float32"), item.device))
        if reference is None or find_precision(item.precision).is_float:
            continue
        losses = []
        if item.size_bytes > reference.size_bytes:
            losses.append(f"larger ({format_bytes(item.size_bytes)} against {format_bytes(reference.size_bytes)})")
        now, before = item.latency_ms["host"], reference.latency_ms["host"]
        if now > (1 + find_tier("host").noise) * before:
            losses.append(f"slower on this host ({format_ms(now)} against {format_ms(before)})")
        if losses:
            step = f"bench {item.model}/{item.kind} {item.variant} on {item.device}"
            context.emit(Noted(step, f"{' and '.join(losses)} than {item.target}:float32", warning=True))


def summary(measurement: Measurement) -> str:
    """The result in a few words, each latency with its tier."""
    emulated = measurement.emulated
    marks = {"emulated": "" if emulated is None or emulated.calibrated else f", {emulated.calibration}"}
    figures = sorted(measurement.latency_ms.items(), reverse=True)
    tiers = [f"{format_ms(value)} ({tier}{marks.get(tier, '')})" for tier, value in figures]
    memory = measurement.peak_memory_bytes
    if memory is None:
        return ", ".join(tiers)
    where = " (emulated)" if measurement.peak_memory_tier == "emulated" else ""
    return ", ".join([*tiers, f"peak memory {format_bytes(memory)}{where}"])
