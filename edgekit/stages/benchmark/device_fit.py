"""Checks whether an artifact fits into a device's memory, without running it there."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.config.device_profile import DeviceProfile
from edgekit.contracts.runtime import Runtime
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepError
from edgekit.core.events import NoteEvent
from edgekit.core.records.artifact import Artifact
from edgekit.devices.cost_models import flash
from edgekit.devices.cost_models.flash import FlashEstimate
from edgekit.devices.memory import memory_shortage
from edgekit.stages.benchmark.code_size_job import CodeSizeRequest, read_code_size
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion.inspect import describe, lifetimes_of
from edgekit.stages.conversion.routes import arena_runtime_of


def why_exceeds_device(context: Context, artifact: Artifact, profile: DeviceProfile | None) -> str | None:
    """Return why an artifact does not fit into a device's memory.

    Args:
        context: The project and its workers.
        artifact: The artifact.
        profile: The device's profile; None for this host, which has no limits.

    Returns:
        The shortage, with the tensor at which memory is exceeded; None if the artifact fits.

    Raises:
        InputError: The artifact is damaged.
    """
    if profile is None:
        return None
    code = _code_size_of(context, artifact) if profile.model_flash is not None else None
    return memory_shortage(profile, artifact.manifest.size_bytes, lifetimes_of(context, artifact), code)


def _code_size_of(context: Context, artifact: Artifact) -> FlashEstimate | None:
    """Return the flash that the artifact's operators take, or None if it does not run on microcontrollers."""
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
    """Estimate the flash that operators and their interpreter take.

    Args:
        context: The project and its workers.
        runtime: The runtime for microcontrollers.
        operators: The names of the operators, as in the model file.
        step: The step that the note is about.

    Returns:
        The estimate; None, with a note, if it cannot be computed.
    """
    try:
        code_size = context.pool.call(
            read_code_size,
            CodeSizeRequest(runtime.name, tuple(operators)),
            step=step,
            environment=runtime_environment(runtime.name),
        )
    except (InputError, MissingDependency, StepError) as error:
        context.emit(NoteEvent(step, f"code size is unknown: {error}"))
        return None
    return flash.estimate_flash(code_size)
