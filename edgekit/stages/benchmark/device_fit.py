"""Whether an artifact fits a device, as far as that is known before it runs there."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.config.device_profile import DeviceProfile
from edgekit.contracts.runtime import Runtime
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepError
from edgekit.core.events import Noted
from edgekit.core.records.artifact import Artifact
from edgekit.devices.cost_models import flash
from edgekit.devices.cost_models.flash import FlashEstimate
from edgekit.devices.memory import memory_shortage
from edgekit.stages.benchmark.code_size_job import CodeSizeRequest, read_code_size
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe, lifetimes_of
from edgekit.stages.conversion.routes import arena_runtime_of
from edgekit.workers.environment import Environment


def why_exceeds_device(context: Context, artifact: Artifact, profile: DeviceProfile | None) -> str | None:
    """Return why the artifact does not fit the device, with the tensor that exceeds it, or None."""
    if profile is None:
        return None
    code = _code_size_of(context, artifact) if profile.model_flash is not None else None
    return memory_shortage(profile, artifact.manifest.size_bytes, lifetimes_of(context, artifact), code)


def _code_size_of(context: Context, artifact: Artifact) -> FlashEstimate | None:
    """The flash that the artifact's operators take, or None where its target has no runtime for microcontrollers."""
    runtime = arena_runtime_of(artifact.manifest.target)
    if runtime is None:
        return None
    step = f"read {artifact.label}"
    try:
        description = describe(context, artifact.manifest.target, artifact.path, step)
    except EdgekitError:  # the step that runs the file reports what is wrong with it
        return None
    return estimate_code_size(context, runtime, [op.name for op in description.ops], step)


def estimate_code_size(context: Context, runtime: Runtime, operators: Sequence[str], step: str) -> FlashEstimate | None:
    """Return the flash that operators and their interpreter take; None, with a note, where it is not known."""
    try:
        code_size = context.pool.call(
            read_code_size,
            CodeSizeRequest(runtime.name, tuple(operators)),
            step=step,
            environment=Environment.of(runtime.variables),
        )
    except (InputError, MissingDependency, StepError) as error:
        context.emit(Noted(step, f"no size of the code: {error}"))
        return None
    return flash.estimate_flash(code_size)
