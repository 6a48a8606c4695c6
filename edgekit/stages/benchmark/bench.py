"""The bench stage: measures size, latency and memory of artifacts under a device profile, each in a pinned process."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from edgekit.config.device_profile import DeviceProfile
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
from edgekit.core.environment.bounded_files import available_memory_bytes, compressed_size
from edgekit.core.environment.project import Project
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.events import NoteEvent, StartEvent
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.measurement import Execution, Measurement, bench_file
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.specs import HOST, ModelDescription, Variant
from edgekit.core.values.tiers import find_tier
from edgekit.devices.boards.places import device_names, find_place, measuring_executor
from edgekit.devices.browsers.names import browser_only, is_browser
from edgekit.devices.cost_models import microcontroller, roofline
from edgekit.devices.emulation import emulator, pins
from edgekit.stages.benchmark import operator_costs
from edgekit.stages.benchmark.device_fit import why_exceeds_device
from edgekit.stages.benchmark.emulated_bench import EmulationOptions, emulate_all
from edgekit.stages.concurrency import default_parallelism, run_concurrently
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe
from edgekit.workers.measurement_lock import MeasurementLock

_log = logging.getLogger(__name__)

# One for the whole process: timings are only comparable while nothing else of edgekit uses the processor.
_lock = MeasurementLock()


@dataclass(frozen=True)
class BenchOptions:
    """The options of a bench.

    Attributes:
        threads: The number of threads; None for the profile's, or 1 without a profile.
        min_duration_s: The shortest duration of the measurement in seconds.
        min_runs: The smallest number of timed inferences.
        warm_up_max_s: The longest duration of the warm-up in seconds.
        timeout_s: The time-out of one measurement in seconds, without emulation.
        emulated: Whether to count instructions on the device's emulated core as well.
        runtime: The runtime to use; empty for the target's default.
        executors: The executors that measure in addition to the host.
        emulated_timeout_s: The time-out of one emulated run in seconds.
        per_op: Whether to measure single operators as well.
    """

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
        """The options that executors read."""
        return BenchRequest(
            self.threads, self.min_duration_s, self.min_runs, self.warm_up_max_s, self.timeout_s, self.per_op
        )

    @property
    def prediction(self) -> EmulationOptions:
        """The options of the emulated tier."""
        return EmulationOptions(self.threads, self.per_op, self.emulated_timeout_s)


def load_devices(project: Project, names: Sequence[str]) -> tuple[tuple[str, DeviceProfile | None], ...]:
    """Load the profiles of the devices that a user names.

    Args:
        project: The project.
        names: Names of device profiles, boards, phones and browsers, or `all` for all profiles; empty for this host
            without a profile.

    Returns:
        Pairs of name and profile; None for a browser, and for a board or phone that names no profile.

    Raises:
        InputError: A device is unknown, or a profile is invalid.
    """
    # `all` means the profiles: boards and phones may be switched off.
    selected = tuple(project.device_files()) if "all" in names else names
    known = device_names(project)
    for name in selected:
        if name not in known:
            raise unknown_name("device", name, [*known, "all"])
    return tuple((name, find_place(project, name).profile) for name in selected) or ((HOST, None),)


def executors_for(device: str, executors: Sequence[str]) -> tuple[str, ...]:
    """Return the executors that measure on a device besides the host: also the one that a board or the like needs.

    Args:
        device: The device's name.
        executors: The executors that the user named.
    """
    own = measuring_executor(device)
    return tuple(dict.fromkeys((*executors, own) if own else executors))


def connect_devices(context: Context, devices: Sequence[str]) -> None:
    """Connect to the boards and phones among some devices, before anything runs.

    Args:
        context: The project and its workers.
        devices: Names of devices.

    Raises:
        InputError: A device refuses the connection.
        MissingDependency: A program is missing here or there.
        StepError: A device does not answer.
    """
    for device in devices:
        executor = measuring_executor(device)
        if executor:
            EXECUTORS.load(executor).connect(context.pool, Place(device))


def step_name(artifact: Artifact, device: str) -> str:
    """Return the name of a bench step, such as `bench simple_cnn/keras tflite:int8 on raspberry-pi-4b`."""
    return f"bench {artifact.label} on {device}"


def _latencies(
    profile: DeviceProfile | None, artifact: Artifact, description: ModelDescription, host_ms: float
) -> tuple[dict[str, float], list[str]]:
    """Return the latency in ms by tier, and notes about the analytic tier."""
    latencies = {"host": host_ms}
    if profile is None:
        return latencies, []
    estimate = microcontroller.estimate_latency(
        profile, artifact.manifest.precision, description.macs, description.mac_outputs
    )
    if estimate is not None:
        return {**latencies, "analytic": estimate.latency_ms}, [f"analytic: {estimate.text}"]
    bound = roofline.roofline(
        profile,
        artifact.manifest.precision,
        macs=description.macs,
        weight_bytes=description.weight_bytes,
        threads=profile.run.threads,
    )
    if bound.latency_ms is None:
        return latencies, [f"no analytic latency: {bound.reason}"]
    rate = "the rate of the instruction set: the core's is not published" if bound.assumed else "the profile's rate"
    return {**latencies, "analytic": bound.latency_ms}, [f"analytic: {bound.bound_by}-bound, at {rate}"]


def _emulation_gap_note(artifact: Artifact, profile: DeviceProfile | None, options: BenchOptions) -> str:
    """Return why a requested emulated latency is missing; empty if it is not."""
    if not options.emulated or profile is None or profile.emulation is None or emulates(artifact):
        return ""
    return f"no emulated latency: the emulated core does not run {artifact.manifest.runtime}"


def emulates(artifact: Artifact) -> bool:
    """Return whether the artifact's runtime is available on emulated cores."""
    return artifact.manifest.runtime in pins.RUNTIMES


def _missing_operator_notes(artifact: Artifact, emulated: EmulatedLatency | None, options: BenchOptions) -> list[str]:
    """Return a note for each tier that has no latency by operator although it was requested."""
    if not options.per_op:
        return []
    runtime = RUNTIMES.load(artifact.manifest.runtime)
    notes = [] if runtime.profiles else [f"no host latency by operator: {runtime.title} for Python has no profiler"]
    reason = "" if emulated is None else operator_costs.unsupported_reason(artifact)
    return [*notes, *([f"no emulated latency by operator: {reason}"] if reason else [])]


def bench_one(
    context: Context,
    artifact: Artifact,
    device: str,
    profile: DeviceProfile | None,
    options: BenchOptions,
    emulated: EmulatedLatency | None = None,
) -> Measurement:
    """Measure one artifact and write its bench-<device>.json.

    Args:
        context: The project and its workers.
        artifact: The artifact.
        device: The name of the device, or `host`.
        profile: The device's profile; None for this host.
        options: The options of the bench.
        emulated: The result of the emulated tier, if it was run before.

    Returns:
        The measurement.

    Raises:
        InputError: The artifact is damaged.
        MissingDependency: A package of the runtime or of an executor is not installed.
        StepError: The process that measures fails or exceeds its time-out.
    """
    step = step_name(artifact, device)
    manifest = artifact.manifest
    place, session = Place(device, profile), ExecutionSession(step, context.pool, context.emit)
    in_browser = bool(options.runtime) and RUNTIMES.load(options.runtime).in_browser
    # The browser's runtime is that of the device; this host measures the artifact's own.
    runtime = "" if in_browser else options.runtime
    other_runtime = runtime if runtime != manifest.runtime else ""
    with contextlib.ExitStack() as prepared:
        with _lock.preparing():
            model = ModelFiles.of(artifact, runtime)
            _log.info("measured by executor %s with runtime %s", HOST, model.runtime, extra={"step": step})
            description = describe(context, manifest.target, artifact.path, step)
            compressed = sum(map(compressed_size, artifact.paths))
            measuring = EXECUTORS.load(HOST).prepare(session, model, place, options.request)
            host_bench = prepared.enter_context(measuring)
        host = _run_alone(context, host_bench, step)
    executions = _execute_elsewhere(context, session, model, place, options)
    latency_ms, notes = _latencies(profile, artifact, description, host.latency_ms)
    operator_notes = _missing_operator_notes(artifact, emulated, options)
    for note in operator_notes:
        context.emit(NoteEvent(step, note))
    notes += [_emulation_gap_note(artifact, profile, options), *operator_notes]
    if emulated is not None:
        latency_ms = {**latency_ms, "emulated": emulated.latency_ms}
    latency_ms = {**{execution.tier: execution.latency_ms for execution in executions}, **latency_ms}
    assert host.wall is not None and host.cpu is not None and host.load_ms is not None  # the host measures all three
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
    """Measure while nothing else measures or prepares; record the waiting time, which is not the step's own."""
    wait_start = time.perf_counter()
    with _lock.measuring():
        waited_s = time.perf_counter() - wait_start
        result = prepared.run()
    context.pool.cpu_wait_s[step] = context.pool.cpu_wait_s.get(step, 0.0) + waited_s
    return result


def _execute_elsewhere(
    context: Context, session: ExecutionSession, model: ModelFiles, place: Place, options: BenchOptions
) -> tuple[Execution, ...]:
    """Measure with the additional executors; one that cannot run the model is skipped with a warning."""
    executions = []
    for name in executors_for(place.device, options.executors):
        executor = EXECUTORS.load(name)
        reason = executor.refusal(model.runtime, place)
        if reason:
            context.emit(NoteEvent(session.step, f"not measured by executor {name}: {reason}", warning=True))
            continue
        require(executor.requires, f"the executor {name}")
        runtime = executor.runtime_at(model.runtime, place)
        _log.info("measured by executor %s with runtime %s", name, runtime, extra={"step": session.step})
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
                operators=result.operators,
                browser=result.browser,
            )
        )
    return tuple(executions)


def bench(
    context: Context,
    artifacts: Sequence[Artifact],
    devices: Sequence[tuple[str, DeviceProfile | None]],
    options: BenchOptions,
) -> tuple[Measurement, ...]:
    """Measure artifacts under device profiles.

    Emulated runs come first and in parallel, since they count instructions. Then one artifact is measured at a time
    while others are being prepared. An artifact that a device does not run is skipped with a note.

    Args:
        context: The project and its workers; measurements that fail go to its failures.
        artifacts: The artifacts.
        devices: Pairs of name and profile, as returned by `load_devices`.
        options: The options of the bench.

    Returns:
        The measurements that succeeded.

    Raises:
        InputError: No artifact runs on any of the devices.
        MissingDependency: The emulation of a device is not set up.
    """
    in_browser = bool(options.runtime) and RUNTIMES.load(options.runtime).in_browser
    if in_browser and not all(is_browser(name) for name, _ in devices):
        raise InputError(browser_only(options.runtime), parameters=("device",))
    guests = _guests(devices) if options.emulated else {}
    connect_devices(context, [device for device, _ in devices])
    fitting = [
        (artifact, device, profile)
        for device, profile in devices
        for artifact in artifacts
        if _fits(context, artifact, device, profile)
    ]
    if not fitting:
        raise InputError(f"none of these artifacts runs on {', '.join(name for name, _ in devices)}")
    emulable = [(artifact, device) for artifact, device, _ in fitting if device in guests and emulates(artifact)]
    records = emulate_all(context, [(artifact, guests[device]) for artifact, device in emulable], options.prediction)
    emulations = {
        (artifact.folder, device): record for (artifact, device), record in zip(emulable, records, strict=True)
    }
    # A failed emulation is None here: it is already among the failures, so its bench is skipped.
    remaining = [job for job in fitting if emulations.get((job[0].folder, job[1]), job) is not None]

    def measure(artifact: Artifact, device: str, profile: DeviceProfile | None) -> Measurement:
        context.emit(StartEvent(step_name(artifact, device)))
        emulation = emulations.get((artifact.folder, device))
        emulated = None if emulation is None else emulation.emulated
        return bench_one(context, artifact, device, profile, options, emulated)

    results: list[Measurement | None] = [None] * len(remaining)
    work = [partial(measure, *job) for job in remaining]
    completed = run_concurrently(work, default_parallelism(available_memory_bytes()), context.pool.stop)
    steps = [step_name(artifact, device) for artifact, device, _ in remaining]
    context.emit_overview(steps, 0, ordered=False)
    for done, (number, future) in enumerate(completed, 1):
        results[number] = context.settle(steps[number], future.result, summary)
        if done < len(steps):
            context.emit_overview(steps, done, ordered=False)
    measurements = [measurement for measurement in results if measurement is not None]
    _warn_of_losses(context, measurements)
    return tuple(measurements)


def _fits(context: Context, artifact: Artifact, device: str, profile: DeviceProfile | None) -> bool:
    """Return whether the device runs the artifact; emit a note with the reason if not."""
    refusal = profile.refusal(artifact.manifest.target, artifact.manifest.precision) if profile else None
    if refusal:
        context.emit(NoteEvent(step_name(artifact, device), f"skipped: {device} {refusal}"))
        return False
    shortage = why_exceeds_device(context, artifact, profile)
    if shortage:
        context.emit(NoteEvent(step_name(artifact, device), f"skipped: {shortage}", warning=True))
    return not shortage


def _guests(devices: Sequence[tuple[str, DeviceProfile | None]]) -> dict[str, emulator.Guest]:
    """Open the emulation of each device that has one; a single device without one is an error."""
    profiles = [(device, profile) for device, profile in devices if profile is not None]
    if not profiles:
        raise InputError("the emulated tier needs a device", parameters=("device",))
    emulable = [(device, profile) for device, profile in profiles if profile.emulation or len(profiles) == 1]
    return {device: emulator.open_guest(device, profile) for device, profile in emulable}


def _warn_of_losses(context: Context, measurements: Sequence[Measurement]) -> None:
    """Warn of each quantized artifact that is larger, or slower on this host, than its float32 counterpart."""
    by_key = {(entry.model, entry.kind, entry.variant, entry.device): entry for entry in measurements}
    for entry in measurements:
        reference = by_key.get((entry.model, entry.kind, Variant(entry.target, "float32"), entry.device))
        if reference is None or find_precision(entry.precision).is_float:
            continue
        losses = []
        if entry.size_bytes > reference.size_bytes:
            losses.append(f"larger ({format_bytes(entry.size_bytes)} against {format_bytes(reference.size_bytes)})")
        latency_ms, reference_ms = entry.latency_ms["host"], reference.latency_ms["host"]
        if latency_ms > (1 + find_tier("host").noise) * reference_ms:
            losses.append(f"slower on this host ({format_ms(latency_ms)} against {format_ms(reference_ms)})")
        if losses:
            step = f"bench {entry.model}/{entry.kind} {entry.variant} on {entry.device}"
            context.emit(NoteEvent(step, f"{' and '.join(losses)} than {entry.target}:float32", warning=True))


def summary(measurement: Measurement) -> str:
    """Return the measurement in one line, each latency with its tier."""
    emulated = measurement.emulated
    marks = {"emulated": "" if emulated is None else f", {emulated.remark}"}
    figures = sorted(measurement.latency_ms.items(), reverse=True)
    tiers = [f"{format_ms(value)} ({tier}{marks.get(tier, '')})" for tier, value in figures]
    memory = measurement.peak_memory_bytes
    if memory is None:
        return ", ".join(tiers)
    where = " (emulated)" if measurement.peak_memory_tier == "emulated" else ""
    return ", ".join([*tiers, f"peak memory {format_bytes(memory)}{where}"])
