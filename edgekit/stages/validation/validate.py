"""The validate stage: compares the outputs of artifacts with those of their sources, and measures the drift."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts.executor import (
    EXECUTORS,
    ExecutionSession,
    Executor,
    InferRequest,
    InferResult,
    ModelFiles,
    Place,
)
from edgekit.core.environment.atomic_files import mapped_write_errors, write_json
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.numerics import batching, tensor_layout
from edgekit.core.numerics.applicable_tolerances import explain_limit, tolerances_for_precision
from edgekit.core.numerics.metrics import TASK_METRICS, Array, TaskMetric, format_metric, top1_agreement
from edgekit.core.numerics.output_comparison import Comparison, compare_outputs
from edgekit.core.numerics.statistics import bootstrap_drop, bootstrap_mean, drift_by_class, mcnemar_p
from edgekit.core.numerics.stress_inputs import stress_inputs
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import Drift, Validation, validation_file
from edgekit.core.values.file_names import GOLDEN_FILE, TEST_FILE
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.specs import HOST
from edgekit.core.values.tolerances import Tolerances
from edgekit.devices.boards.board import open_board
from edgekit.devices.boards.places import BROWSER, SSH, find_place, measuring_executor
from edgekit.devices.emulation import emulator
from edgekit.stages.context import Context
from edgekit.stages.validation.compare import call_worker
from edgekit.stages.validation.diff import source_beside
from edgekit.stages.validation.model_run_job import run_stream, run_with_rounding

# Name of the executor that a device without an executor stands for.
EMULATED = "emulated"
# Batch sizes that a symbolic batch is tested with: a reshape with a fixed batch size fails on at least one of them.
BATCHES = (2, 7)
# The number of calls in a row that a model with state is compared over.
STREAM = 8
# The test samples that source and artifact put into different classes.
FLIPS_FILE = "flips.npz"
# A default session is reported where its SQNR is this much worse: kernels that round in another order differ by less.
_ARTEFACT_DB = 3.0
# Fewer than for a mean, because each resample computes an AUC from all scores.
_AUC_RESAMPLES = 500


_log = logging.getLogger(__name__)


def _infer(
    context: Context,
    artifact: Artifact,
    inputs: Mapping[str, Array],
    batch: int = 1,
    runtime: str = "",
    *,
    stream: bool = False,
) -> dict[str, Array]:
    """Run samples on this host, in the artifact's default runtime or the named one.

    Each is computed from the initial state of a model that keeps state, or from that of the one before in a stream.
    """
    request = InferRequest(inputs, batch, from_start=artifact.manifest.is_stateful and not stream)
    return dict(_run(context, artifact, request, runtime).outputs)


def _run(context: Context, artifact: Artifact, request: InferRequest, runtime: str = "") -> InferResult:
    session = ExecutionSession(step_name(artifact), context.pool)
    model = ModelFiles.of(artifact, runtime)
    _log.info("run by executor %s with runtime %s", HOST, model.runtime, extra={"step": session.step})
    return EXECUTORS.load(HOST).infer(session, model, Place(HOST), request)


def step_name(artifact: Artifact) -> str:
    """Return the step's name, such as `validate simple_cnn/keras tflite:int8`."""
    return f"validate {artifact.label}"


def tolerances_for(context: Context, artifact: Artifact) -> dict[str, Tolerances]:
    """Return the tolerances of each output of an artifact.

    They combine the model's own tolerances, the rounding error of the source and the defaults of the precision.

    Args:
        context: The project.
        artifact: The artifact.

    Raises:
        InputError: The model's model.toml is invalid.
    """
    manifest = artifact.manifest
    overrides = own_tolerances(context, manifest.model, manifest.precision)
    rounding = manifest.rounding
    return {
        spec.name: tolerances_for_precision(manifest.precision, overrides, rounding.get(spec.name))
        for spec in manifest.signature.outputs
    }


def reasons_for(context: Context, artifact: Artifact) -> dict[str, dict[str, str]]:
    """Explain the tolerances of each output of an artifact.

    Args:
        context: The project.
        artifact: The artifact.

    Returns:
        Output -> limit -> the reason for its value.

    Raises:
        InputError: The model's model.toml is invalid.
    """
    manifest = artifact.manifest
    overrides = own_tolerances(context, manifest.model, manifest.precision)
    rounding = manifest.rounding
    return {
        name: {
            limit: explain_limit(manifest.precision, limit, overrides, rounding.get(name))
            for limit in tolerances.limits()
        }
        for name, tolerances in tolerances_for(context, artifact).items()
    }


def own_tolerances(context: Context, model: str, precision: str) -> Tolerances | None:
    """Return the tolerances that a reference model's model.toml sets for a precision, or None.

    Args:
        context: The project.
        model: Name of the model.
        precision: Name of the precision.

    Raises:
        InputError: The model's model.toml is invalid.
    """
    if model not in context.project.models():
        return None
    return context.spec(model).own_tolerances(precision)


def without_agreement(tolerances: Mapping[str, Tolerances]) -> dict[str, Tolerances]:
    """Return tolerances without the agreement of classes, which needs more samples than the golden ones.

    One different sample of 64 is 1.6 percentage points.

    Args:
        tolerances: Tolerances by output.
    """
    return {name: replace(limits, min_top1_agreement=None) for name, limits in tolerances.items()}


def _test_set(artifact: Artifact) -> Samples | None:
    """Return the source's test set with its outputs in the artifact's layout, or None if there is none."""
    folder = artifact.folder.parent / "source"
    if not (folder / TEST_FILE).is_file():
        return None
    test = samples.load(folder / TEST_FILE, "test samples")
    orders = tensor_layout.permutations_between(load_source(folder).signature, artifact.manifest.signature)
    inputs, outputs = (tensor_layout.transpose_arrays(arrays, orders) for arrays in (test.inputs, test.outputs))
    return Samples(inputs, outputs, test.labels)


def drift_of(
    metric_name: str | None, task: str | None, test: Samples, outputs: Mapping[str, Array], tolerances: Tolerances
) -> Drift | None:
    """Measure how much worse an artifact is at the task than its source.

    Args:
        metric_name: Name of the task metric, or None.
        task: Name of the task, or None.
        test: The test set with the source's outputs.
        outputs: The artifact's outputs on the test set by name, shape (N, ...).
        tolerances: The tolerances of the first output.

    Returns:
        The drift of the first output; None without a task metric or labels.
    """
    metric = TASK_METRICS.get(str(metric_name))
    if metric is None or test.labels is None:
        return None
    name = next(iter(test.outputs))
    inputs = next(iter(test.inputs.values()))
    before, after = (metric.compute(arrays[name], test.labels, inputs) for arrays in (test.outputs, outputs))
    drift = Drift(
        metric=metric.name,
        source=before,
        artifact=after,
        drop=metric.drop(before, after),
        samples=test.count,
        top1_agreement=None,
        min_top1_agreement=None,
        **_uncertainty(metric, test, name, outputs[name]),
    )
    if task != "classification":
        return drift
    source_correct, artifact_correct = (
        np.argmax(array, axis=-1) == test.labels for array in (test.outputs[name], outputs[name])
    )
    lost, won = int(np.sum(source_correct & ~artifact_correct)), int(np.sum(~source_correct & artifact_correct))
    return replace(
        drift,
        top1_agreement=top1_agreement(test.outputs[name], outputs[name]),
        min_top1_agreement=tolerances.min_top1_agreement,
        lost=lost,
        won=won,
        p_value=mcnemar_p(lost, won),
        classes=drift_by_class(source_correct, artifact_correct, test.labels),
    )


def _uncertainty(metric: TaskMetric, test: Samples, name: str, outputs: Array) -> dict[str, Any]:
    """Return the confidence interval of the drop, and its variance per sample if the metric is a mean."""
    labels, reference = test.labels, test.outputs[name]
    assert labels is not None  # checked by the caller
    if metric.per_sample is not None:
        before, after = (metric.per_sample(array, labels).astype(np.float64) for array in (reference, outputs))
        drops = before - after if metric.higher_is_better else after - before
        return {"interval": bootstrap_mean(drops), "variance": float(np.var(drops))}
    if metric.scores is None or metric.of_scores is None:
        return {}
    inputs, of_scores = next(iter(test.inputs.values())), metric.of_scores
    scores = [metric.scores(array, inputs) for array in (reference, outputs)]

    def metrics_of(indices: NDArray[np.intp]) -> tuple[float, float]:
        if len(np.unique(labels[indices])) < 2:
            return float("nan"), float("nan")  # an AUC needs samples of both classes
        before, after = (of_scores(array[indices], labels[indices]) for array in scores)
        return before, after

    return {"interval": bootstrap_drop(metrics_of, len(labels), metric.drop, resamples=_AUC_RESAMPLES)}


def _write_flips(artifact: Artifact, test: Samples, outputs: Mapping[str, Array]) -> None:
    """Write the test samples that artifact and source put into different classes to flips.npz."""
    path = artifact.folder / FLIPS_FILE
    path.unlink(missing_ok=True)
    name = next(iter(test.outputs))
    before, after = (np.argmax(array, axis=-1) for array in (test.outputs[name], outputs[name]))
    index = np.flatnonzero(before != after)
    if len(index) == 0 or test.labels is None:
        return
    arrays = {f"input/{key}": array[index] for key, array in test.inputs.items()}
    with mapped_write_errors(path):
        labels = {"index": index, "label": test.labels[index], "source": before[index], "artifact": after[index]}
        np.savez_compressed(path, **labels, **arrays)  # type: ignore[arg-type]


def validate_one(context: Context, artifact: Artifact, *, stress: bool = False, runtime: str = "") -> Validation:
    """Validate one artifact on this host and write the result next to it.

    Args:
        context: The project and the workers.
        artifact: The artifact.
        stress: Whether to add stress inputs, which real samples rarely contain, and batches.
        runtime: The runtime; empty for the artifact's default one. Another runtime has a result file of its own.

    Returns:
        The result; a failed comparison raises no error.

    Raises:
        InputError: The artifact is damaged.
        MissingDependency: A package is not installed.
        StepError: The runtime crashed.
    """
    manifest = artifact.manifest
    tolerances = tolerances_for(context, artifact)
    golden = artifact.golden()
    test = _test_set(artifact)
    classifier = manifest.source.get("task") == "classification"
    on_golden = tolerances if test is None else without_agreement(tolerances)
    other_runtime = runtime if runtime != manifest.runtime else ""
    result = _run(
        context, artifact, InferRequest(golden.inputs, by_default=True, from_start=manifest.is_stateful), other_runtime
    )
    comparisons = compare_outputs(
        golden.outputs, result.outputs, on_golden, classifier=classifier, layouts=manifest.signature.output_layouts
    )
    comparable = all(comparison.problem is None for comparison in comparisons)
    drift = None
    if test is not None and comparable:
        outputs = _infer(context, artifact, test.inputs, runtime=other_runtime)
        first_output = tolerances[next(iter(test.outputs))]
        drift = drift_of(manifest.source.get("metric"), manifest.source.get("task"), test, outputs, first_output)
        if classifier and not other_runtime:
            _write_flips(artifact, test, outputs)
    details = _validate_stress(context, artifact, other_runtime) if stress else {}
    details |= {"arithmetic": result.arithmetic, "by_default": _by_default(golden.outputs, comparisons, result)}
    if manifest.is_stateful:
        details["batches"] = _validate_stream(context, artifact, other_runtime)
    if other_runtime:
        details |= {"device": HOST, "runtime": other_runtime}
    return _save_validation(artifact, comparisons, drift=drift, **details)


def _by_default(
    expected: Mapping[str, Array], comparisons: Sequence[Comparison], result: InferResult
) -> tuple[Comparison, ...]:
    """Compare outputs without tolerances where applications get worse ones on this processor than the file's own."""
    if result.by_default is None:
        return ()
    limits = dict.fromkeys(expected, Tolerances())
    compared = compare_outputs(expected, result.by_default, limits, classifier=False)
    return tuple(
        default
        for default, own in zip(compared, comparisons, strict=True)
        if default.problem is None and _sqnr_db(default) < _sqnr_db(own) - _ARTEFACT_DB
    )


def _sqnr_db(comparison: Comparison) -> float:
    value = comparison.value("sqnr_db")
    return math.inf if value is None else value


def _save_validation(
    artifact: Artifact,
    comparisons: tuple[Comparison, ...],
    *,
    drift: Drift | None = None,
    device: str | None = None,
    executor: str = "",
    runtime: str = "",
    ran: str = "",
    **details: Any,
) -> Validation:
    """Write the result next to the artifact, in a file named after another device, executor or runtime.

    `ran` is the runtime that ran it, where the device has one of its own.
    """
    manifest = artifact.manifest
    validation = Validation(
        model=manifest.model,
        kind=manifest.source["kind"],
        target=manifest.target,
        precision=manifest.precision,
        artifact_sha256=manifest.sha256,
        runtime=ran or runtime or manifest.runtime,
        comparisons=comparisons,
        drift=drift,
        device=device,
        executor=executor,
        tag=manifest.variant.tag,
        **details,
    )
    file = validation_file(device, executor=executor, runtime=runtime)
    write_json(artifact.folder / file, {**asdict(validation), "passed": validation.passed})
    return validation


def _validate_stress(context: Context, artifact: Artifact, runtime: str = "") -> dict[str, Any]:
    """Compare the artifact with its source on stress inputs, within the source's rounding error on them.

    A quantized artifact was calibrated on other inputs: its outputs must be finite, and their errors are only reported.
    Raise InputError if the source does not exist.
    """
    manifest = artifact.manifest
    source = source_beside(context, str(artifact.folder))
    folder = Path(str(source.folder))
    real = samples.load(folder / GOLDEN_FILE, "golden samples").inputs
    signature = load_source(folder).signature
    is_float = find_precision(manifest.precision).is_float
    cases, inputs = stress_inputs(signature, real, outside=is_float)
    outputs, rounding = call_worker(context, run_with_rounding, source, inputs, "run on stress inputs")
    orders = tensor_layout.permutations_between(signature, manifest.signature)
    actual = _infer(context, artifact, tensor_layout.transpose_arrays(inputs, orders), runtime=runtime)
    overrides = own_tolerances(context, manifest.model, manifest.precision)
    limits = {
        name: tolerances_for_precision(manifest.precision, overrides, rounding.get(name)) if is_float else Tolerances()
        for name in outputs
    }
    expected = tensor_layout.transpose_arrays(outputs, orders)
    layouts = manifest.signature.output_layouts
    comparisons = compare_outputs(expected, actual, without_agreement(limits), classifier=False, layouts=layouts)
    return {"stress": comparisons, "stress_cases": cases, "batches": _validate_batches(context, artifact, runtime)}


def _validate_batches(context: Context, artifact: Artifact, runtime: str = "") -> tuple[Comparison, ...]:
    """Compare an artifact with a symbolic batch on batches of golden samples.

    Dynamic ranges cover a whole batch, so that its size changes the outputs, as it does where the source itself
    computes over the batch: such errors are only reported.
    """
    manifest, golden = artifact.manifest, artifact.golden()
    if manifest.is_stateful or not batching.has_symbolic_batch(manifest.signature):
        return ()
    limits = without_agreement(tolerances_for(context, artifact))
    if find_precision(manifest.precision).dynamic_ranges or manifest.source.get("one_by_one"):
        limits = {name: Tolerances() for name in limits}
    comparisons: list[Comparison] = []
    for size in BATCHES:
        actual = _infer(context, artifact, golden.inputs, size, runtime)
        compared = compare_outputs(
            golden.outputs, actual, limits, classifier=False, layouts=manifest.signature.output_layouts
        )
        for comparison in compared:
            comparisons.append(replace(comparison, output=f"{comparison.output} in batches of {size}"))
    return tuple(comparisons)


def _validate_stream(context: Context, artifact: Artifact, runtime: str = "") -> tuple[Comparison, ...]:
    """Compare an artifact of a source that keeps state with it over calls in a row, from the initial state.

    The golden samples are compared from the initial state each; whether a file keeps the state shows only here.
    """
    manifest = artifact.manifest
    try:
        source = source_beside(context, str(artifact.folder))
    except InputError as error:
        reason = f"calls in a row were not compared, since the source is missing ({error})"
        context.emit(NoteEvent(step_name(artifact), reason, warning=True))
        return ()
    folder = Path(str(source.folder))
    signature = load_source(folder).signature
    real = samples.load(folder / GOLDEN_FILE, "golden samples").inputs
    inputs = batching.select_samples(signature, real, 0, min(STREAM, batching.n_samples(signature, real)))
    outputs = call_worker(context, run_stream, source, inputs, "run in a stream")
    orders = tensor_layout.permutations_between(signature, manifest.signature)
    actual = _infer(context, artifact, tensor_layout.transpose_arrays(inputs, orders), runtime=runtime, stream=True)
    compared = compare_outputs(
        tensor_layout.transpose_arrays(outputs, orders),
        actual,
        without_agreement(tolerances_for(context, artifact)),
        classifier=False,
        layouts=manifest.signature.output_layouts,
    )
    count = batching.n_samples(signature, inputs)
    title = f"over {count} calls in a row, which the source's state connects"
    return tuple(replace(comparison, output=f"{comparison.output} {title}") for comparison in compared)


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
    _log.info("run by executor %s with runtime %s", executor.name, ran, extra={"step": session.step})
    actual = executor.infer(session, model, place, InferRequest(golden.inputs, timeout_s=timeout_s)).outputs
    on_host = _infer(context, artifact, golden.inputs, runtime=other_runtime)
    limits = without_agreement(tolerances)  # the test set is not run on the device
    to_source, to_host = (
        compare_outputs(expected, actual, limits, classifier=classifier, layouts=manifest.signature.output_layouts)
        for expected in (golden.outputs, on_host)
    )
    return _save_validation(
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
        devices: Names of boards and browsers, and of device profiles, which stand for the devices' emulated cores.
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
    for place in of_executor.get(SSH, ()):
        open_board(context.pool, place.device).check_python()
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
        return () if executor in (EMULATED, SSH, BROWSER) else (Place(HOST),)
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


def validate(
    context: Context, artifacts: Sequence[Artifact], *, stress: bool = False, runtime: str = ""
) -> tuple[Validation, ...]:
    """Validate artifacts on this host.

    Args:
        context: The project and the workers; errors are added to its failures.
        artifacts: The artifacts.
        stress: Whether to add stress inputs and batches.
        runtime: The runtime; empty for each artifact's default one.

    Returns:
        The results in the order of the artifacts, without those that could not be compared.
    """
    # Artifacts of one runtime follow each other, so that a worker keeps its library.
    results: dict[int, Validation] = {}
    order = sorted(range(len(artifacts)), key=lambda index: artifacts[index].manifest.runtime)
    steps = [step_name(artifacts[index]) for index in order]
    for done, index in enumerate(order):
        artifact = artifacts[index]
        context.emit_overview(steps, done)
        result = context.attempt(
            steps[done], partial(validate_one, context, artifact, stress=stress, runtime=runtime), summary
        )
        if result is not None:
            results[index] = result
    return tuple(results[index] for index in sorted(results))


def summary(validation: Validation) -> str:
    """Return the result in a few words."""
    if not validation.passed:
        return "NOT EQUIVALENT: " + "; ".join(validation.failures)
    error = validation.worst("max_abs_error")
    text = f"equivalent, max abs error {error:.2g}" if error is not None else "equivalent"
    if validation.unquantized:
        text += ", nothing was quantized"
    if validation.drift is not None:
        text += f", {validation.drift.metric} {format_metric(validation.drift.metric, validation.drift.artifact)}"
    return f"{text}; {validation.processor_note}" if validation.by_default else text
