"""The micro stage: runs TFLite artifacts in TensorFlow Lite Micro, measures their memory and writes them as C files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgekit.config.device_profile import DeviceProfile, load_profile
from edgekit.contracts.runtime import MAX_ARENA_BYTES, Runtime
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.errors import InputError, StepError
from edgekit.core.escape import c_identifier
from edgekit.core.numerics.output_comparison import Comparison, compare_outputs
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.memory_plan import Arena, MemoryPeak, TensorLifetime, bisect_minimum, memory_peak
from edgekit.core.units import format_bytes
from edgekit.core.values.precisions import PRECISIONS
from edgekit.core.values.specs import ModelDescription, Signature
from edgekit.devices.cost_models import microcontroller
from edgekit.devices.cost_models.flash import FlashEstimate
from edgekit.devices.cost_models.microcontroller import LatencyEstimate
from edgekit.devices.infer_job import RunRequest, run_model
from edgekit.devices.memory import memory_shortage
from edgekit.stages.benchmark import npu
from edgekit.stages.benchmark.device_fit import estimate_code_size
from edgekit.stages.benchmark.micro_job import ArenaRequest, read_allocation, try_arena
from edgekit.stages.benchmark.npu_job import NpuFit
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion.inspect import describe, lifetimes_of
from edgekit.stages.conversion.routes import arena_runtime_of
from edgekit.stages.validation.artifact_tolerances import tolerances_for
from edgekit.targets._tflite import c_array
from edgekit.workers.job import WorkerJob

T = TypeVar("T")
# Ethos-U computes 8-bit weights with 8-bit or 16-bit activations.
NPU_PRECISIONS = tuple(
    precision.name for precision in PRECISIONS if precision.weight_bits == 8 and precision.activation_bits in (8, 16)
)


@dataclass(frozen=True)
class MicroFit:
    """The memory, outputs and estimated latency of an artifact on a microcontroller.

    Attributes:
        artifact: The artifact.
        arena: The smallest arena in which the artifact runs.
        peak: The lower bound of the arena: the largest sum of tensors that are alive at the same time.
        tensor_lifetimes: The lifetime of each tensor.
        flash_bytes: The size of the model file.
        operators: The operators that the interpreter must register.
        signature: Inputs and outputs in the order in which the interpreter numbers them.
        comparisons: The outputs, compared with those of the source model.
        device: The name of the device, or None.
        problems: The reasons why the artifact does not run on the device.
        latency: The estimated latency; None unless the device's kernels were fitted to published timings.
        code: The flash that operators and interpreter take; None if it is unknown.
    """

    artifact: Artifact
    arena: Arena
    peak: MemoryPeak
    tensor_lifetimes: tuple[TensorLifetime, ...]
    flash_bytes: int
    operators: tuple[str, ...]
    signature: Signature
    comparisons: tuple[Comparison, ...]
    device: str | None
    problems: tuple[str, ...]
    latency: LatencyEstimate | None = None
    code: FlashEstimate | None = None

    @property
    def passed(self) -> bool:
        """Whether the outputs are equivalent to the source model's and the artifact fits the device."""
        return not self.problems and all(comparison.passed for comparison in self.comparisons)

    def data(self) -> dict[str, Any]:
        """Return the entry of this artifact in `micro --json`."""
        rest = {key: value for key, value in asdict(self).items() if key != "artifact"}
        return {"artifact": self.artifact.label, **rest, "passed": self.passed}


def micro_one(context: Context, artifact: Artifact, device: tuple[str, DeviceProfile] | None) -> MicroFit:
    """Run one artifact in TensorFlow Lite Micro.

    Args:
        context: The project and its workers.
        artifact: The TFLite artifact.
        device: Name and profile of the microcontroller; None to skip the checks that depend on the device.

    Returns:
        The memory, outputs and estimated latency.

    Raises:
        InputError: TensorFlow Lite Micro rejects the artifact, for example because an operator is missing.
        MissingDependency: TensorFlow Lite Micro is not installed.
        StepError: The process that runs the artifact fails.
    """
    manifest = artifact.manifest
    runtime = arena_runtime_of(manifest.target)
    assert runtime is not None  # `micro` selects such artifacts only
    path = str(artifact.verified_path().resolve())
    step = f"micro {artifact.label}"
    arena = _find_smallest_arena(context, runtime, path, step)
    lifetimes = lifetimes_of(context, artifact)
    golden = artifact.golden()
    outputs = context.pool.call(
        run_model,
        RunRequest(runtime.name, path, manifest.signature, golden.inputs),
        step=step,
        environment=runtime_environment(runtime.name),
    )
    limits = tolerances_for(context, artifact)
    description = describe(context, manifest.target, artifact.path, step)
    operators = tuple(op.name for op in description.ops)
    fit = MicroFit(
        artifact,
        arena,
        memory_peak(lifetimes),
        lifetimes,
        manifest.size_bytes,
        operators,
        manifest.signature.ordered_as(description.signature),
        compare_outputs(golden.outputs, outputs, limits, classifier=False, layouts=manifest.signature.output_layouts),
        None if device is None else device[0],
        (),
        code=estimate_code_size(context, runtime, operators, step),
    )
    return fit if device is None else _check_device(fit, device[1], description)


def _find_smallest_arena(context: Context, runtime: Runtime, path: str, step: str) -> Arena:
    """Find the smallest arena by bisection; a crash of the interpreter counts as "too small"."""

    def call_worker(job: WorkerJob[ArenaRequest, T], size: int) -> T:
        request = ArenaRequest(runtime.name, path, size)
        return context.pool.call(job, request, step=step, environment=runtime_environment(runtime.name))

    # The largest arena runs first: only if it succeeds does a crash in a smaller one mean that it is too small.
    reason = call_worker(try_arena, MAX_ARENA_BYTES)
    if reason is not None:
        raise InputError(f"{path}: {runtime.title} cannot load this file ({reason})")

    def runs(size: int) -> bool:
        try:
            return call_worker(try_arena, size) is None
        except StepError:
            return False

    size = bisect_minimum(runs, MAX_ARENA_BYTES)
    assert size is not None  # the largest arena succeeded above
    return call_worker(read_allocation, size)


def _check_device(fit: MicroFit, profile: DeviceProfile, description: ModelDescription) -> MicroFit:
    """Return the fit with the problems and the estimated latency on a device."""
    problems = []
    refusal = profile.refusal(fit.artifact.manifest.target, fit.artifact.manifest.precision)
    if refusal is not None:
        problems.append(f"{fit.device} {refusal}")
    shortage = memory_shortage(profile, fit.flash_bytes, fit.tensor_lifetimes, fit.code)
    if shortage is None and fit.arena.total_bytes > profile.memory.ram:
        arena, ram = format_bytes(fit.arena.total_bytes), format_bytes(profile.memory.ram)
        shortage = f"its arena of {arena} is larger than the RAM of {ram}"
    if shortage is not None:
        problems.append(shortage)
    precision = fit.artifact.manifest.precision
    latency = microcontroller.estimate_latency(profile, precision, description.macs, description.mac_outputs)
    return replace(fit, problems=tuple(problems), latency=latency)


def check_targets(targets: Iterable[str]) -> None:
    """Raise an error unless at least one target runs on microcontrollers.

    Args:
        targets: The names of the targets.

    Raises:
        InputError: None of the targets runs on microcontrollers.
    """
    if not any(arena_runtime_of(target) for target in targets):
        raise InputError("no TFLite artifact is selected: microcontrollers run TFLite only; use: --target tflite")


def micro(
    context: Context, artifacts: Sequence[Artifact], device: tuple[str, DeviceProfile] | None
) -> tuple[MicroFit, ...]:
    """Run the artifacts of targets for microcontrollers in TensorFlow Lite Micro.

    Args:
        context: The project and its workers; artifacts that cannot be run go to its failures.
        artifacts: The artifacts; those of other targets are ignored.
        device: Name and profile of the microcontroller, or None.

    Returns:
        One result for each artifact that runs.

    Raises:
        InputError: No artifact runs on microcontrollers, or the device is not a microcontroller.
    """
    if device is not None and device[1].kind != "microcontroller":
        raise InputError(
            f"{device[0]} is a {device[1].kind}, not a microcontroller; run: edgekit bench --device {device[0]}"
        )
    runnable = [artifact for artifact in artifacts if arena_runtime_of(artifact.manifest.target)]
    check_targets(artifact.manifest.target for artifact in artifacts)
    fits = (
        context.attempt(f"micro {artifact.label}", partial(micro_one, context, artifact, device), summary)
        for artifact in runnable
    )
    return tuple(fit for fit in fits if fit is not None)


def on_npu(context: Context, artifacts: Sequence[Artifact], accelerator: str) -> tuple[NpuFit, ...]:
    """Compile the artifacts that Ethos-U supports with Vela.

    Args:
        context: The project and its workers; artifacts that Vela rejects go to its failures.
        artifacts: The artifacts; those of other targets and precisions are ignored.
        accelerator: The name of the accelerator, such as `ethos-u55-128`.

    Returns:
        One estimate for each artifact that Vela accepts.

    Raises:
        InputError: The accelerator is unknown, or no artifact has a target and precision that Ethos-U supports.
    """
    npu.check_accelerator(accelerator)
    supported = [
        artifact
        for artifact in artifacts
        if artifact.manifest.target == npu.TARGET and artifact.manifest.precision in NPU_PRECISIONS
    ]
    if not supported:
        raise InputError(
            f"no artifact for Ethos-U is selected: it runs {npu.TARGET} at {' and '.join(NPU_PRECISIONS)} only"
        )
    fits = (
        context.attempt(
            f"{accelerator} {artifact.label}", partial(npu.npu_one, context, artifact, accelerator), npu.summary
        )
        for artifact in supported
    )
    return tuple(fit for fit in fits if fit is not None)


def summary(fit: MicroFit) -> str:
    """Return the memory in one line, with the problems."""
    needs = f"arena {format_bytes(fit.arena.total_bytes)}, model {format_bytes(fit.flash_bytes)}"
    if fit.code is not None:
        needs += f", code about {format_bytes(fit.code.code_bytes)}"
    return f"{needs}; {'; '.join(fit.problems)}" if fit.problems else needs


def c_name(artifact: Artifact) -> str:
    """Return the C identifier of an artifact, such as `simple_cnn_keras_int8`."""
    manifest = artifact.manifest
    variant = manifest.variant.slug.removeprefix(f"{manifest.target}-")
    return c_identifier(f"{manifest.model}_{manifest.source['kind']}_{variant}")


def emit_c(fit: MicroFit, final: Path) -> Path:
    """Write an artifact as C files.

    Args:
        fit: The artifact with the size of its arena and its operators.
        final: The folder, which is replaced.

    Returns:
        The folder.

    Raises:
        InputError: The artifact is damaged, or the folder cannot be written.
        DiskFull: The disk is full.
    """
    manifest = fit.artifact.manifest
    model = c_array.CModel(
        name=c_name(fit.artifact),
        content=fit.artifact.verified_path().read_bytes(),
        signature=fit.signature,
        arena_bytes=fit.arena.total_bytes,
        operators=fit.operators,
        origin=f"{fit.artifact.label}, sha256 {manifest.sha256}",
    )
    with staged_folder(Path(os.path.realpath(final))) as staging:  # a link stays one
        for file, text in c_array.files(model).items():
            (staging / file).write_text(text, encoding="utf-8")
    return final


def emit_beside(context: Context, artifacts: Sequence[Artifact]) -> tuple[Path, ...]:
    """Write TFLite artifacts as C files into folders next to them, such as `tflite-int8-c`.

    Args:
        context: The project and its workers; artifacts that cannot be run go to its failures.
        artifacts: The artifacts.

    Returns:
        The folders that were written.

    Raises:
        InputError: No artifact runs on microcontrollers, or a folder cannot be written.
        DiskFull: The disk is full.
    """
    fits = micro(context, artifacts, None)
    return tuple(emit_c(fit, fit.artifact.folder.with_name(f"{fit.artifact.folder.name}-c")) for fit in fits)


def device_of(context: Context, name: str) -> tuple[str, DeviceProfile]:
    """Load a device profile.

    Args:
        context: The project.
        name: The name of the device.

    Returns:
        The name and the profile.

    Raises:
        InputError: The device is unknown, or its profile is invalid.
    """
    return name, load_profile(context.project.device_file(name))
