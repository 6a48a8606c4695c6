"""Validation on devices: boards, browsers and emulated cores, by means of executors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from edgekit.contracts.executor import (
    EXECUTORS,
    ExecutionSession,
    Executor,
    InferRequest,
    ModelFiles,
    Place,
)
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.numerics.output_comparison import compare_outputs
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.validation import Validation
from edgekit.core.values.specs import HOST
from edgekit.devices.boards.places import ADB, BROWSER, SSH, find_place, measuring_executor
from edgekit.devices.emulation import emulator
from edgekit.stages.context import Context
from edgekit.stages.validation.artifact_tolerances import tolerances_for, without_agreement
from edgekit.stages.validation.validate import infer, save_validation, step_name, summary, tell_if_synthetic, validate

_log = logging.getLogger(__name__)

# Name of the executor that a device without an executor stands for.
EMULATED = "emulated"


def validate_on(
    context: Context, artifact: Artifact, executor: Executor, place: Place, timeout_s: float, runtime: str = ""
) -> Validation:
    """Compare what an executor computes on the golden samples with the source and with this host.

    The result is written into a file of its own next to the artifact.

    Args:
        context: The project and the workers.
        artifact: The artifact.
        executor: Runs the artifact.
        place: The device on which it runs.
        timeout_s: The limit in seconds.
        runtime: The runtime; empty for the artifact's default one.

    Raises:
        InputError: The artifact is damaged, or the executor does not support its runtime on this device.
        MissingDependency: A package is not installed, or the emulator is not set up.
        StepError: The executor or the runtime on this host failed.
    """
    manifest = artifact.manifest
    other_runtime = runtime if runtime not in (manifest.runtime, executor.runtime_at(manifest.runtime, place)) else ""
    model = ModelFiles.of(artifact, other_runtime)
    executor.check(model.runtime, place)
    ran = executor.runtime_at(model.runtime, place)
    tolerances = tolerances_for(context, artifact)
    golden = artifact.golden()
    classifier = manifest.source.get("task") == "classification"
    session = ExecutionSession(f"{step_name(artifact)} on {place.device}", context.pool, context.emit)
    tell_if_synthetic(context, artifact, session.step)
    _log.info("run by executor %s with runtime %s", executor.name, ran, extra={"step": session.step})
    actual = executor.infer(session, model, place, InferRequest(golden.inputs, timeout_s=timeout_s)).outputs
    on_host = infer(context, artifact, golden.inputs, runtime=other_runtime)
    limits = without_agreement(tolerances)  # the test set is not run on the device
    to_source, to_host = (
        compare_outputs(expected, actual, limits, classifier=classifier, layouts=manifest.signature.output_layouts)
        for expected in (golden.outputs, on_host)
    )
    return save_validation(
        artifact,
        to_source,
        device=place.device,
        # A device without an executor stands for its emulated core, in records too.
        executor="" if executor.name == EMULATED else executor.name,
        runtime=other_runtime,
        ran=ran,
        against_host=to_host,
    )


def validate_elsewhere(
    context: Context,
    artifacts: Sequence[Artifact],
    executor: Executor,
    places: Sequence[Place],
    timeout_s: float,
    runtime: str = "",
) -> tuple[Validation, ...]:
    """Validate each artifact on each device; an event names the artifacts that a device does not run.

    Args:
        context: The project and the workers; errors are added to its failures.
        artifacts: The artifacts.
        executor: Runs the artifacts.
        places: The devices.
        timeout_s: The limit in seconds of one run.
        runtime: The runtime; empty for each artifact's default one.

    Returns:
        The results, device by device.

    Raises:
        InputError: None of the artifacts runs on one of the devices.
    """
    validations, tried = [], 0
    for place in places:
        for artifact in artifacts:
            manifest, step = artifact.manifest, f"{step_name(artifact)} on {place.device}"
            reason = place.profile.refusal(manifest.target, manifest.precision) if place.profile else None
            reason = executor.refusal(runtime or manifest.runtime, place) or reason
            if reason:
                context.emit(NoteEvent(step, f"skipped: {reason}"))
                continue
            tried += 1
            work = partial(validate_on, context, artifact, executor, place, timeout_s, runtime)
            result = context.attempt(step, work, summary)
            if result is not None:
                validations.append(result)
    if not tried:
        raise InputError(f"none of these artifacts runs on {', '.join(place.device for place in places)}")
    return tuple(validations)


def validate_at(
    context: Context,
    artifacts: Sequence[Artifact],
    devices: Sequence[str],
    executors: Sequence[str] = (),
    *,
    runtime: str = "",
    stress: bool = False,
    timeout_s: float = 600.0,
) -> tuple[Validation, ...]:
    """Validate artifacts on this host, or on devices by means of executors.

    Args:
        context: The project and the workers.
        artifacts: The artifacts.
        devices: Names of boards, phones and browsers, and of device profiles, which stand for the devices' emulated
            cores.
        executors: Names of executors.
        runtime: The runtime; empty for each artifact's default one.
        stress: Whether to add stress inputs, on this host.
        timeout_s: The limit in seconds of one run.

    Returns:
        The results, executor by executor.

    Raises:
        InputError: A device or executor is unknown, cannot be emulated, or runs none of the artifacts; or stress inputs
            are requested elsewhere than on this host.
        MissingDependency: A package is not installed, or the emulator is not set up.
    """
    places = [find_place(context.project, name) for name in devices]
    other_executors = [name for name in executors if name != HOST]
    if not other_executors:
        other_executors = list(dict.fromkeys(measuring_executor(place.device) or EMULATED for place in places))
    if stress and other_executors:
        raise InputError(
            f"stress inputs run on this host only, not on {', '.join(devices or other_executors)};"
            " validate them without a device or an executor"
        )
    for name in other_executors:
        executor = EXECUTORS.load(name)
        require(executor.requires, f"the executor {name}")
    of_executor = {name: _places_of(name, places, executors) for name in other_executors}
    if EMULATED in other_executors:
        _check_emulation(of_executor[EMULATED])
    for name, reached in of_executor.items():
        for place in reached:
            EXECUTORS.load(name).connect(context.pool, place)
    if not other_executors:
        return validate(context, artifacts, stress=stress, runtime=runtime)
    validations: tuple[Validation, ...] = ()
    for name in other_executors:
        executor = EXECUTORS.load(name)
        validations += validate_elsewhere(context, artifacts, executor, of_executor[name], timeout_s, runtime)
    return validations


def _places_of(executor: str, places: Sequence[Place], named: Sequence[str]) -> Sequence[Place]:
    """Return the devices that an executor runs on: all, unless the kind of each device decides."""
    if not places:
        return () if executor in (EMULATED, SSH, ADB, BROWSER) else (Place(HOST),)
    if executor in named:
        return places
    return [place for place in places if (measuring_executor(place.device) or EMULATED) == executor]


def _check_emulation(places: Sequence[Place]) -> None:
    """Raise InputError or MissingDependency, before anything runs, for a device whose emulation is not set up."""
    if not places:
        raise InputError(f"the executor {EMULATED} needs a device", parameters=("device",))
    for place in places:
        assert place.profile is not None  # `validate_at` has loaded it
        emulator.open_guest(place.device, place.profile)
