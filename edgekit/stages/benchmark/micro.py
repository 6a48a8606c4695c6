"""The micro stage: does a TFLite artifact run on a microcontroller, in how much memory, and as which C files?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgekit.config.device_profile import DeviceProfile, load_profile
from edgekit.contracts.runtime import MAX_ARENA_BYTES, Runtime
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.errors import InputError, StepError
from edgekit.core.numerics.output_comparison import Comparison, compare_outputs
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.memory_plan import Arena, MemoryPeak, TensorLifetime, bisect_minimum, memory_peak
from edgekit.core.units import format_bytes
from edgekit.core.values.precisions import PRECISIONS
from edgekit.core.values.specs import ModelDescription
from edgekit.devices.cost_models import microcontroller
from edgekit.devices.cost_models.flash import FlashEstimate
from edgekit.devices.cost_models.microcontroller import LatencyEstimate
from edgekit.devices.infer_job import RunRequest, run_model
from edgekit.devices.memory import memory_shortage
from edgekit.stages.benchmark import npu
from edgekit.stages.benchmark.device_fit import estimate_code_size
from edgekit.stages.benchmark.micro_job import ArenaRequest, read_allocation, try_arena
from edgekit.stages.benchmark.npu_job import NpuFit
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe, lifetimes_of
from edgekit.stages.conversion.routes import arena_runtime_of
from edgekit.stages.validation.validate import tolerances_for
from edgekit.targets._tflite import c_array
from edgekit.workers.environment import Environment
from edgekit.workers.job import WorkerJob

T = TypeVar("T")
# Ethos-U computes 8-bit weights with 8-bit or 16-bit activations.
NPU_PRECISIONS = tuple(item.name for item in PRECISIONS if item.weight_bits == 8 and item.activation_bits in (8, 16))


@dataclass(frozen=True)
class MicroFit:
    """What an artifact takes on a microcontroller.

    `arena` is the smallest that it runs in, `peak` what no planner can do without; `flash_bytes` is the model's file,
    and `code` what its operators and their interpreter take beside it, where that could be found. `operators` are those
    that its interpreter must know. `comparisons` are its outputs there against its source's. `problems` says what keeps
    it from the device, if there is one, and `latency` what it takes there, where the device's kernels were fitted to
    published timings.
    """

    artifact: Artifact
    arena: Arena
    peak: MemoryPeak
    tensor_lifetimes: tuple[TensorLifetime, ...]
    flash_bytes: int
    operators: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    device: str | None
    problems: tuple[str, ...]
    latency: LatencyEstimate | None = None
    code: FlashEstimate | None = None

    @property
    def passed(self) -> bool:
        """Whether it computes what its source computes, and fits the device that was named."""
        return not self.problems and all(item.passed for item in self.comparisons)

    def data(self) -> dict[str, Any]:
        """For --json."""
        rest = {key: value for key, value in asdict(self).items() if key != "artifact"}
        return {"artifact": self.artifact.label, **rest, "passed": self.passed}


def micro_one(context: Context, artifact: Artifact, device: tuple[str, DeviceProfile] | None) -> MicroFit:
    """Runs the artifact in TensorFlow Lite Micro.

    Raises InputError when that does not take it (an operator is missing, weights are float beside int8 ones),
    MissingDependency, StepError when it does not survive.
    """
    manifest = artifact.manifest
    runtime = arena_runtime_of(manifest.target)
    assert runtime is not None  # the caller has chosen such artifacts
    path = str(artifact.verified_path().resolve())
    step = f"micro {artifact.label}"
    found = _smallest_arena(context, runtime, path, step)
    told = lifetimes_of(context, artifact)
    golden = artifact.golden()
    outputs = context.pool.call(
        run_model,
        RunRequest(runtime.name, path, manifest.signature, golden.inputs),
        step=step,
        environment=Environment.of(runtime.variables),
    )
    limits = tolerances_for(context, artifact)
    description = describe(context, manifest.target, artifact.path, step)
    operators = tuple(op.name for op in description.ops)
    fit = MicroFit(
        artifact,
        found,
        memory_peak(told),
        told,
        manifest.size_bytes,
        operators,
        compare_outputs(golden.outputs, outputs, limits, classifier=False),
        None if device is None else device[0],
        (),
        code=estimate_code_size(context, runtime, operators, step),
    )
    return fit if device is None else _on(fit, device[1], description)


def _smallest_arena(context: Context, runtime: Runtime, path: str, step: str) -> Arena:
    """The smallest arena. A size that crashes the interpreter is too small, where the largest does not."""

    def in_worker(job: WorkerJob[ArenaRequest, T], size: int) -> T:
        request = ArenaRequest(runtime.name, path, size)
        return context.pool.call(job, request, step=step, environment=Environment.of(runtime.variables))

    reason = in_worker(try_arena, MAX_ARENA_BYTES)
    if reason is not None:
        raise InputError(f"{path}: {runtime.title} cannot load this file ({reason})")

    def runs(size: int) -> bool:
        try:
            return in_worker(try_arena, size) is None
        except StepError:
            return False

    size = bisect_minimum(runs, MAX_ARENA_BYTES)
    assert size is not None  # the largest did
    return in_worker(read_allocation, size)


def _on(fit: MicroFit, profile: DeviceProfile, description: ModelDescription) -> MicroFit:
    """With what keeps it from the device, and how long it takes there."""
    problems = []
    refusal = profile.refuses(fit.artifact.manifest.target, fit.artifact.manifest.precision)
    if refusal is not None:
        problems.append(f"{fit.device} {refusal}")
    narrow = memory_shortage(profile, fit.flash_bytes, fit.tensor_lifetimes, fit.code)
    if narrow is None and fit.arena.total_bytes > profile.memory.ram:
        narrow = f"its arena of {format_bytes(fit.arena.total_bytes)} is larger than {format_bytes(profile.memory.ram)}"
    if narrow is not None:
        problems.append(narrow)
    precision = fit.artifact.manifest.precision
    latency = microcontroller.estimate_latency(profile, precision, description.macs, description.mac_outputs)
    return replace(fit, problems=tuple(problems), latency=latency)


def check_targets(targets: Iterable[str]) -> None:
    """Raises InputError when none of them is what a microcontroller runs."""
    if not any(arena_runtime_of(target) for target in targets):
        raise InputError("microcontrollers run TFLite artifacts, and none is among these")


def micro(
    context: Context, artifacts: Sequence[Artifact], device: tuple[str, DeviceProfile] | None
) -> tuple[MicroFit, ...]:
    """Tries each TFLite artifact; those that could not be run at all are in `context.failures`.

    Raises InputError when there is no TFLite artifact among them, or the device is no microcontroller.
    """
    if device is not None and device[1].kind != "microcontroller":
        raise InputError(f"{device[0]} is a {device[1].kind}, not a microcontroller; bench measures there")
    chosen = [item for item in artifacts if arena_runtime_of(item.manifest.target)]
    check_targets(item.manifest.target for item in artifacts)
    tried = (
        context.attempt(f"micro {item.label}", partial(micro_one, context, item, device), summary) for item in chosen
    )
    return tuple(item for item in tried if item is not None)


def on_npu(context: Context, artifacts: Sequence[Artifact], accelerator: str) -> tuple[NpuFit, ...]:
    """What Vela makes of each int8 TFLite artifact; those that it does not take are in `context.failures`.

    Raises InputError when there is none, or no such accelerator.
    """
    npu.check_accelerator(accelerator)
    chosen = [
        item for item in artifacts if item.manifest.target == npu.TARGET and item.manifest.precision in NPU_PRECISIONS
    ]
    if not chosen:
        raise InputError(f"Ethos-U runs TFLite artifacts in {' and '.join(NPU_PRECISIONS)}, and none is among these")
    tried = (
        context.attempt(f"{accelerator} {item.label}", partial(npu.npu_one, context, item, accelerator), npu.summary)
        for item in chosen
    )
    return tuple(item for item in tried if item is not None)


def summary(fit: MicroFit) -> str:
    """The result in a few words."""
    needs = f"arena {format_bytes(fit.arena.total_bytes)}, model {format_bytes(fit.flash_bytes)}"
    if fit.code is not None:
        needs += f", code about {format_bytes(fit.code.code_bytes)}"
    return f"{needs}; {'; '.join(fit.problems)}" if fit.problems else needs


def c_name(artifact: Artifact) -> str:
    """What the artifact is called in C: `simple_cnn_keras_int8`."""
    manifest = artifact.manifest
    variant = manifest.variant.slug.removeprefix(f"{manifest.target}-")
    return c_array.identifier(f"{manifest.model}_{manifest.source['kind']}_{variant}")


def emit_c(fit: MicroFit, final: Path) -> Path:
    """Writes the artifact as C files into that folder, which it replaces; returns it.

    Raises InputError when the folder cannot be written, DiskFull.
    """
    manifest = fit.artifact.manifest
    model = c_array.CModel(
        name=c_name(fit.artifact),
        content=fit.artifact.verified_path().read_bytes(),
        signature=manifest.signature,
        arena_bytes=fit.arena.total_bytes,
        operators=fit.operators,
        origin=f"{fit.artifact.label}, sha256 {manifest.sha256}",
    )
    with staged_folder(final) as staging:
        for file, text in c_array.files(model).items():
            (staging / file).write_text(text, encoding="utf-8")
    return final


def emit_beside(context: Context, artifacts: Sequence[Artifact]) -> tuple[Path, ...]:
    """Writes TFLite artifacts as C files into `tflite-int8-c` and the like beside them; the folders.

    Those that TensorFlow Lite Micro does not take are in `context.failures`. Raises InputError when there is no TFLite
    artifact.
    """
    fits = micro(context, artifacts, None)
    return tuple(emit_c(fit, fit.artifact.folder.with_name(f"{fit.artifact.folder.name}-c")) for fit in fits)


def device_of(context: Context, name: str) -> tuple[str, DeviceProfile]:
    """The profile of that name. Raises InputError when there is none."""
    return name, load_profile(context.project.device_file(name))
