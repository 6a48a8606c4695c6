"""The validate stage: compares the outputs of artifacts with those of their sources, and measures the drift."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contracts.executor import (
    EXECUTORS,
    ExecutionSession,
    InferRequest,
    InferResult,
    ModelFiles,
    Place,
)
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.numerics import batching, tensor_layout
from edgekit.core.numerics.applicable_tolerances import tolerances_for_precision
from edgekit.core.numerics.metrics import Array, format_metric
from edgekit.core.numerics.output_comparison import Comparison, compare_outputs
from edgekit.core.numerics.stress_inputs import stress_inputs
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import Drift, Validation, validation_file
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.specs import HOST
from edgekit.core.values.synthetic_samples import SYNTHETIC_WORTH
from edgekit.core.values.tolerances import Tolerances
from edgekit.stages.context import Context
from edgekit.stages.validation.artifact_tolerances import own_tolerances, tolerances_for, without_agreement
from edgekit.stages.validation.compare import call_worker
from edgekit.stages.validation.diff import source_beside
from edgekit.stages.validation.drift import drift_of, read_test_set, write_flips
from edgekit.stages.validation.model_run_job import run_stream, run_with_rounding

# Batch sizes that a symbolic batch is tested with: a reshape with a fixed batch size fails on at least one of them.
BATCHES = (2, 7)
# The number of calls in a row that a model with state is compared over.
STREAM = 8
# A default session is reported where its SQNR is this much worse: kernels that round in another order differ by less.
_ARTEFACT_DB = 3.0


_log = logging.getLogger(__name__)


def infer(
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

    Args:
        context: The project and the workers.
        artifact: The artifact.
        inputs: Real values by input name, each of shape (N, ...).
        batch: Samples per call, where the batch dimension is symbolic.
        runtime: The runtime; empty for the artifact's default one.
        stream: Whether a model keeps its state from one sample to the next.

    Returns:
        Real values by output name, each of shape (N, ...).
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


def tell_if_synthetic(context: Context, artifact: Artifact, step: str) -> None:
    """Report that an artifact is judged on samples that were synthesized from its network.

    Args:
        context: Receives the note.
        artifact: The artifact.
        step: The step that judges it.
    """
    if artifact.manifest.golden.get("synthetic"):
        context.emit(NoteEvent(step, f"compared on synthetic samples: {SYNTHETIC_WORTH}"))


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
    tell_if_synthetic(context, artifact, step_name(artifact))
    golden = artifact.golden()
    test = read_test_set(artifact)
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
        outputs = infer(context, artifact, test.inputs, runtime=other_runtime)
        first_output = tolerances[next(iter(test.outputs))]
        drift = drift_of(manifest.source.get("metric"), manifest.source.get("task"), test, outputs, first_output)
        if classifier and not other_runtime:
            write_flips(artifact, test, outputs)
    details = _validate_stress(context, artifact, other_runtime) if stress else {}
    details |= {"arithmetic": result.arithmetic, "by_default": _by_default(golden.outputs, comparisons, result)}
    if manifest.is_stateful:
        details["batches"] = _validate_stream(context, artifact, other_runtime)
    if other_runtime:
        details |= {"device": HOST, "runtime": other_runtime}
    return save_validation(artifact, comparisons, drift=drift, **details)


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


def save_validation(
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

    Args:
        artifact: The artifact.
        comparisons: Its outputs beside the source's.
        drift: The drift on the test set.
        device: Name of the device; None for this host.
        executor: Name of the executor; empty for this host and for an emulated core.
        runtime: The runtime, unless it is the artifact's default one.
        ran: The runtime that ran it, where the device has one of its own.
        **details: Further fields of `Validation`.
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
    actual = infer(context, artifact, tensor_layout.transpose_arrays(inputs, orders), runtime=runtime)
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
        actual = infer(context, artifact, golden.inputs, size, runtime)
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
    actual = infer(context, artifact, tensor_layout.transpose_arrays(inputs, orders), runtime=runtime, stream=True)
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
