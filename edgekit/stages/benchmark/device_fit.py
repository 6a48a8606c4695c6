"""Whether an artifact has room on a device, as far as that can be told before it is run there."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.config.device_profile import DeviceProfile
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepError
from edgekit.core.events import Noted
from edgekit.core.records.artifact import Artifact
from edgekit.devices.cost_models import flash
from edgekit.devices.cost_models.flash import FlashEstimate
from edgekit.devices.memory import memory_shortage
from edgekit.runtimes.tflite_micro import RUNTIME
from edgekit.stages.benchmark.code_size_job import CodeSizeRequest, read_code_size
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe, lifetimes_of
from edgekit.workers.environment import Environment

TARGET = "tflite"
"""What microcontrollers run."""


def why_exceeds_device(context: Context, artifact: Artifact, profile: DeviceProfile | None) -> str | None:
    """Why the artifact has no room on the device, with the tensor that breaks it; None where it has."""
    if profile is None:
        return None
    code = _code_beside(context, artifact) if profile.model_flash is not None else None
    return memory_shortage(profile, artifact.manifest.size_bytes, lifetimes_of(context, artifact), code)


def _code_beside(context: Context, artifact: Artifact) -> FlashEstimate | None:
    if artifact.manifest.target != TARGET:
        return None
    step = f"read {artifact.label}"
    try:
        description = describe(context, TARGET, artifact.path, step)
    except EdgekitError:  # what is wrong with it is told by the step that runs it
        return None
    return estimate_code_size(context, [op.name for op in description.ops], step)


def estimate_code_size(context: Context, operators: Sequence[str], step: str) -> FlashEstimate | None:
    """The flash that operators and their interpreter take; None, with a note why, where that cannot be told."""
    try:
        found = context.pool.call(
            read_code_size,
            CodeSizeRequest(tuple(operators)),
            step=step,
            environment=Environment.of(RUNTIME.variables),
        )
    except (InputError, MissingDependency, StepError) as error:
        context.emit(Noted(step, f"no size of the code: {error}"))
        return None
    return flash.estimate_flash(found)
