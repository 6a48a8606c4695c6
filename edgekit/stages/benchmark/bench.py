"""The bench stage: size, latency and memory of artifacts under a device profile, each in a pinned process."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import DeviceProfile
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.atomic_files import mapped_write_errors, to_json, write_json
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError
from edgekit.core.events import Noted, Started
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.measurement import Measurement, bench_file
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.units import format_bytes, format_ms
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import ModelDescription
from edgekit.devices import host_machine
from edgekit.devices.cost_models import microcontroller, roofline
from edgekit.devices.emulation import emulator, pins
from edgekit.stages.benchmark import operator_costs
from edgekit.stages.benchmark.device_fit import why_exceeds_device
from edgekit.stages.benchmark.emulated_bench import EmulationOptions, emulate_all
from edgekit.stages.concurrency import default_parallelism, run_concurrently
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe
from edgekit.workers.environment import Environment
from edgekit.workers.gated_process import GatedProcess
from edgekit.workers.measurement_lock import MeasurementLock

_NOISE = 1.1  # a difference smaller than this is no difference on a shared machine
_turns = MeasurementLock()
HOST = "host"  # the device name of a bench without a profile


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
    emulated_timeout_s: float = emulator.TIMEOUT_S
    per_op: bool = False

    @property
    def prediction(self) -> EmulationOptions:
        """What of it is about the emulated tier."""
        return EmulationOptions(self.threads, self.per_op, self.emulated_timeout_s)


def step_name(artifact: Artifact, device: str) -> str:
    """`bench simple_cnn/keras tflite:int8 on raspberry-pi-4b`."""
    return f"bench {artifact.label} on {device}"


def compressed_bytes(path: Path) -> int:
    """The size under gzip -9: what a download or an app bundle carries."""
    return len(gzip.compress(path.read_bytes(), compresslevel=9, mtime=0))


@contextlib.contextmanager
def _prepared(
    context: Context, artifact: Artifact, plan: host_machine.HostPlan, options: BenchOptions, step: str
) -> Iterator[Callable[[], dict[str, Any]]]:
    """The host tier: the runner in a process of its own, with the runtime's library loaded; what is yielded measures.

    The process gets its cores when it measures: others may prepare beside it before.
    """
    runtime = RUNTIMES.load(artifact.manifest.runtime)
    require(runtime.requires, f"the runtime {runtime.name}")
    # OpenBLAS is numpy's, with which nothing is measured; its threads would keep the process from being copied.
    variables = {"OMP_NUM_THREADS": str(plan.threads), "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    everything = tuple(sorted({**variables, **runtime.variables}.items()))
    environment = Environment(everything, None, plan.memory_limit_bytes)
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        request, result = Path(folder, "request.json"), Path(folder, "result.json")
        with mapped_write_errors(request):
            request.write_text(
                to_json(
                    {
                        "runtime": artifact.manifest.runtime,
                        "file": str(artifact.verified_path()),
                        "samples": str(artifact.folder / GOLDEN_FILE),
                        "signature": asdict(artifact.manifest.signature),
                        "threads": plan.threads,
                        "cpus": plan.cpus,
                        "min_duration_s": options.min_duration_s,
                        "min_runs": options.min_runs,
                        "warm_up_max_s": options.warm_up_max_s,
                        "per_op": options.per_op,
                    }
                )
            )
        words, about = [str(request), str(result)], [artifact.manifest.runtime]
        start = context.pool.fork_servers.start("edgekit.runtimes._runner", about, environment, options.timeout_s)
        with GatedProcess(start, words, environment, step=step, timeout_s=options.timeout_s) as process:

            def measure() -> dict[str, Any]:
                process.release()
                measured: dict[str, Any] = json.loads(result.read_text())
                return measured

            yield measure


def _latencies(
    profile: DeviceProfile | None, artifact: Artifact, description: ModelDescription, measured: dict[str, Any]
) -> tuple[dict[str, float], list[str]]:
    """One figure a tier, and why a tier has none."""
    latencies = {"host": float(measured["wall"]["p50_ms"])}
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
    plan = host_machine.plan(profile, options.threads)
    with contextlib.ExitStack() as prepared:
        with _turns.preparing():
            description = describe(context, artifact.manifest.target, artifact.verified_path(), step)
            compressed = sum(map(compressed_bytes, artifact.paths))
            measure = prepared.enter_context(_prepared(context, artifact, plan, options, step))
        waiting = time.perf_counter()
        with _turns.measuring():
            waited_s = time.perf_counter() - waiting
            measured = measure()
    context.pool.cpu_wait_s[step] = context.pool.cpu_wait_s.get(step, 0.0) + waited_s
    latency_ms, notes = _latencies(profile, artifact, description, measured)
    untold = _missing_operator_notes(artifact, emulated, options)
    for note in untold:
        context.emit(Noted(step, note))
    notes += [_why_not_emulated(artifact, profile, options), *untold]
    if emulated is not None:
        latency_ms = {**latency_ms, "emulated": emulated.latency_ms}
    manifest = artifact.manifest
    measurement = Measurement(
        model=manifest.model,
        kind=manifest.source["kind"],
        target=manifest.target,
        precision=manifest.precision,
        artifact_sha256=manifest.sha256,
        device=device,
        runtime=manifest.runtime,
        size_bytes=manifest.size_bytes,
        compressed_bytes=compressed,
        latency_ms=latency_ms,
        load_ms=measured["load_ms"],
        first_inference_ms=measured["first_inference_ms"],
        warm_up_runs=measured["warm_up_runs"],
        wall=Distribution(**measured["wall"]),
        cpu=Distribution(**measured["cpu"]),
        threads=plan.threads,
        cpus=None if measured["cpus"] is None else tuple(measured["cpus"]),
        host=host_machine.description(),
        peak_memory_load_bytes=measured["peak_memory_load_bytes"],
        peak_memory_run_bytes=measured["peak_memory_run_bytes"],
        macs=description.macs,
        weight_bytes=description.weight_bytes,
        notes=tuple(note for note in (plan.note, *notes) if note),
        emulated=emulated,
        tag=manifest.variant.tag,
        kinds={op.name: op.count for op in description.ops},
        operators=tuple(OperatorCost(**item) for item in measured["operators"]),
    )
    write_json(artifact.folder / bench_file(device), asdict(measurement))
    return measurement


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
        raise InputError("this host as it is has no emulated tier; name a device: --device NAME")
    able = [(device, profile) for device, profile in named if profile.emulation or len(named) == 1]
    return {device: emulator.open_guest(device, profile) for device, profile in able}


def _warn_of_losses(context: Context, done: Sequence[Measurement]) -> None:
    """Says so where a quantized artifact is larger, or slower on this host, than the float32 one beside it."""
    floats = {(item.model, item.kind, item.target, item.device): item for item in done if item.precision == "float32"}
    for item in done:
        reference = floats.get((item.model, item.kind, item.target, item.device))
        if reference is None or item.precision in ("float32", "float16"):
            continue
        losses = []
        if item.size_bytes > reference.size_bytes:
            losses.append(f"larger ({format_bytes(item.size_bytes)} against {format_bytes(reference.size_bytes)})")
        now, before = item.latency_ms["host"], reference.latency_ms["host"]
        if now > _NOISE * before:
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
