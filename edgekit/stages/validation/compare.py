"""The compare stage: the equivalence verdict for any two model files, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgekit.contracts.target import Target
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError
from edgekit.core.numerics import metrics
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.output_comparison import Comparison, compare_output
from edgekit.core.numerics.tensor_pairing import TensorPair, check_forced, pair_tensors
from edgekit.core.numerics.tolerances import tolerances_for_precision
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import load_source
from edgekit.core.values.file_names import MANIFEST_FILE, SOURCE_FILE
from edgekit.core.values.precisions import parse_precision, precision_names
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._given_samples import fitted, read_arrays
from edgekit.stages.context import Context, runtime_environment, source_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.inspect import describe
from edgekit.stages.models import model_refs
from edgekit.stages.validation import model_run_job
from edgekit.stages.validation.model_run_job import ModelCall, ModelRef, stamp_of
from edgekit.workers.job import WorkerJob

EQUAL, UNEQUAL, NO_EVIDENCE = "equal", "not equal", "no evidence"

T = TypeVar("T")


@dataclass(frozen=True)
class TaskFigures:
    """What labels tell of a classifier: the accuracy of both, and how often both choose the same class."""

    first_accuracy: float
    second_accuracy: float
    top1_agreement: float


@dataclass(frozen=True)
class Equivalence:
    """The verdict on two models: `equal`, `not equal`, or `no evidence`, with the pairs that it rests on.

    `unpaired` names tensors that only one of them has; `precision` is the one whose tolerances are applied.
    """

    first: str
    second: str
    verdict: str
    precision: str
    inputs: tuple[TensorPair, ...]
    outputs: tuple[TensorPair, ...]
    unpaired: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    task: TaskFigures | None


def model_ref(context: Context, text: str) -> ModelRef:
    """What the text stands for: an artifact's folder, a file of a target's format, or a source model.

    Raises InputError when it is none of them.
    """
    path = Path(text)
    artifact = artifact_of(path)
    if artifact is not None:
        return ModelRef(
            text,
            target=artifact.manifest.target,
            runtime=artifact.manifest.runtime,
            path=str(artifact.verified_path().resolve()),
            signature=artifact.manifest.signature,
            stamp=stamp_of(artifact.path),
        )
    if (path / SOURCE_FILE).is_file():
        return source_ref(context, path)
    if not path.exists() and Factory.parse(text).where != text:
        kind = model_refs.framework_of(context, text)
        return ModelRef(text, kind=kind, code=model_refs.from_here(text), base=str(context.project.root))
    target = target_of(path)
    try:
        shown_by = None if target is None else target.name
        kind = model_refs.kind_of(path)
        return ModelRef(text, target=shown_by, kind=kind, path=str(path.resolve()), stamp=stamp_of(path))
    except InputError:
        if target is None or not path.is_file():
            raise
    return ModelRef(text, target=target.name, runtime=target.runtime, path=str(path.resolve()), stamp=stamp_of(path))


def source_ref(context: Context, folder: Path) -> ModelRef:
    """The source in a folder that edgekit trained or took it into."""
    source = load_source(folder)
    base = context.project.code_base(source.name)
    made = ModelRef(str(folder), kind=source.kind, folder=str(folder.resolve()), base=str(base), stamp=stamp_of(folder))
    target = target_of(Path(source.file))
    if target is None or target.name != source.kind:
        return made
    return replace(made, target=target.name, path=str((folder / source.file).resolve()))


def artifact_of(path: Path) -> Artifact | None:
    """The artifact whose folder or model file this is."""
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / MANIFEST_FILE).is_file():
        return None
    artifact = load_artifact(folder)
    return artifact if path.is_dir() or artifact.path.resolve() == path.resolve() else None


def target_of(path: Path) -> Target | None:
    """The target whose files end as this one does, or None."""
    return next((item for item in routes.targets().values() if path.suffix.lower() in item.suffixes), None)


def call_worker(
    context: Context, job: WorkerJob[ModelCall, T], model: ModelRef, inputs: Mapping[str, Array], verb: str
) -> T:
    """Run a job on a model, in the worker of its runtime or of its framework.

    Args:
        context: The project and the workers.
        job: The job.
        model: The model.
        inputs: Samples by input name, shape (N, ...).
        verb: What the job does with the model, for the step's name.
    """
    return context.pool.call(
        job,
        ModelCall(model, inputs),
        step=f"{verb} {model.label}",
        environment=runtime_environment(model.runtime) if model.runtime else source_environment(str(model.kind)),
        listener=context.emit,
    )


def read_signature(context: Context, model: ModelRef, samples: Mapping[str, Array]) -> Signature:
    """Return the model's signature. Raises InputError when it does not open, or does not take such samples."""
    return call_worker(context, model_run_job.read_signature, model, samples, "open")


def run_model(context: Context, model: ModelRef, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs by name, shape (N, ...), for inputs by the model's own names."""
    return call_worker(context, model_run_job.run_model, model, inputs, "run")


@dataclass(frozen=True)
class Inputs:
    """The inputs of both models for the same samples, how they belong together, and what only one of them has."""

    pairs: tuple[TensorPair, ...]
    missing: tuple[TensorSpec, ...]
    left: tuple[TensorSpec, ...]
    first: Mapping[str, Array]
    second: Mapping[str, Array]


def inputs_of(
    operands: tuple[ModelRef, ModelRef],
    signatures: Sequence[Signature],
    arrays: Mapping[str, Array],
    forced: Mapping[str, str],
    what: str,
) -> Inputs:
    """What both models take of the samples, by each one's own names. Raises InputError when they do not fit."""
    pairs, missing, left = pair_tensors(signatures[0].inputs, signatures[1].inputs, forced)
    firsts = _inputs_of_first(signatures, pairs, arrays, what)
    return Inputs(pairs, missing, left, firsts, _inputs_of_second(pairs, left, arrays, firsts, operands[1].label))


def _inputs_of_first(
    signatures: Sequence[Signature], pairs: Sequence[TensorPair], samples: Mapping[str, Array], what: str
) -> dict[str, Array]:
    """The first model's inputs out of the samples, which may hold arrays for the second one too, or in its layout."""
    first, second = signatures
    names = {spec.name for spec in first.inputs}
    chosen = {name: array for name, array in samples.items() if name in names} if names <= set(samples) else samples
    try:
        return fitted(chosen, first, what)
    except InputError:
        if {item.first.name for item in pairs} != names:
            raise
        try:
            seconds = fitted(samples, second, what)
        except InputError:
            seconds = {}
        if not seconds:
            raise
        return {item.first.name: item.reverse.forward(seconds[item.second.name]) for item in pairs}


def _inputs_of_second(
    pairs: Sequence[TensorPair],
    left: Sequence[TensorSpec],
    samples: Mapping[str, Array],
    firsts: Mapping[str, Array],
    second: str,
) -> dict[str, Array]:
    """The second model's inputs: an array of its own name, else the first one's, in its layout."""
    inputs = {}
    for item in pairs:
        own = samples.get(item.second.name) if item.second.name not in firsts else None
        inputs[item.second.name] = item.forward(firsts[item.first.name]) if own is None else own
    for spec in left:
        if spec.name not in samples:
            raise InputError(
                f"{second} takes {spec}, to which no input of the other model fits; give it in the samples by its name,"
                " or pair it with --pair"
            )
        inputs[spec.name] = samples[spec.name]
    return inputs


def specs(outputs: Mapping[str, Array]) -> list[TensorSpec]:
    """What computed outputs, shape (N, ...), are."""
    return [TensorSpec(name, ("batch", *array.shape[1:]), str(array.dtype)) for name, array in outputs.items()]


def _cast(array: Array, reference: Array) -> Array:
    """Floats of another width in the reference's."""
    both = (array.dtype, reference.dtype)
    return array.astype(reference.dtype) if all(np.issubdtype(dtype, np.floating) for dtype in both) else array


def precision_of(context: Context, item: ModelRef) -> str:
    """An artifact's own; else `int8` for a file with quantized tensors, `float16` for one of half-width weights, else
    `float32`."""
    artifact = None if item.path is None else artifact_of(Path(item.path))
    if artifact is not None:
        return artifact.manifest.precision
    target = None if item.path is None else target_of(Path(item.path))
    if target is None or not Path(str(item.path)).is_file() or not target.describe_tells_precision:
        return "float32"
    try:
        found = describe(context, target.name, Path(str(item.path)), f"read {item.label}")
    except InputError:
        return "float32"
    if found.quantized_tensors:
        return "int8"
    return "float16" if found.parameters and found.weight_bytes < 3 * found.parameters else "float32"


def coarser_precision(context: Context, operands: Sequence[ModelRef]) -> str:
    """The precision of the file that has the less of it."""
    found = [precision_of(context, item) for item in operands]
    return next((name for name in reversed(precision_names()) if name in found), "float32")


def compare(
    context: Context,
    texts: tuple[str, str],
    samples: Path | Mapping[str, Array],
    *,
    labels: Path | Array | None = None,
    forced: Mapping[str, str] | None = None,
    precision: str | None = None,
) -> Equivalence:
    """Runs both models on the samples and compares what they compute; the first is the reference.

    Samples are a file's, or arrays by input name, shape (N, ...), with `labels` among them or beside them.
    `precision` chooses the tolerances; None takes the coarser one of the two files'. Raises InputError (bad file, bad
    samples, inputs that do not fit), MissingDependency, StepError when a file kills its interpreter.
    """
    if precision is not None:
        parse_precision(precision)
    first, second = (model_ref(context, text) for text in texts)
    what = str(samples) if isinstance(samples, Path) else "the samples"
    arrays = read_arrays(samples) if isinstance(samples, Path) else dict(samples)
    given_labels = _labels(arrays.pop("labels", None), labels)
    arrays = {"input": arrays.pop("")} if "" in arrays else arrays
    signatures = [read_signature(context, item, arrays) for item in (first, second)]
    forced = forced or {}
    inputs = inputs_of((first, second), signatures, arrays, forced, what)
    reference, actual = run_model(context, first, inputs.first), run_model(context, second, inputs.second)
    outputs, lost, extra = pair_tensors(specs(reference), specs(actual), forced)
    check_forced(forced, (*signatures[0].inputs, *specs(reference)), (*signatures[1].inputs, *specs(actual)))
    precision = precision or coarser_precision(context, (first, second))
    classifier = given_labels is not None
    tolerances = tolerances_for_precision(precision)
    comparisons = tuple(
        _compared(item, reference[item.first.name], actual[item.second.name], tolerances, classifier)
        for item in outputs
    )
    task = None if given_labels is None else _task(outputs, reference, actual, given_labels)
    return Equivalence(
        first.label,
        second.label,
        _verdict(comparisons),
        precision,
        inputs.pairs,
        outputs,
        tuple(
            [f"{first.label}: {spec.name}" for spec in (*inputs.missing, *lost)]
            + [f"{second.label}: {spec.name}" for spec in (*inputs.left, *extra)]
        ),
        comparisons,
        task,
    )


def _compared(item: TensorPair, reference: Array, actual: Array, tolerances: object, classifier: bool) -> Comparison:
    expected = item.forward(reference)
    name = item.first.name if item.first.name == item.second.name else f"{item.first.name}={item.second.name}"
    return compare_output(name, expected, _cast(actual, expected), tolerances, classifier=classifier)  # type: ignore[arg-type]


def _labels(inside: Array | None, given: Path | Array | None) -> Array | None:
    if given is None:
        return inside
    if not isinstance(given, Path):
        return np.asarray(given)
    found = read_arrays(given)
    return found["labels"] if "labels" in found else next(iter(found.values()))


def _task(
    pairs: Sequence[TensorPair], reference: Mapping[str, Array], actual: Mapping[str, Array], labels: Array
) -> TaskFigures:
    """Raises InputError when the labels are not classes of the first output."""
    item = pairs[0]
    one, other = reference[item.first.name], actual[item.second.name]
    one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
    if len(labels) != len(one) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be {len(one)} whole numbers, one a sample (got {labels.dtype} {labels.shape})")
    return TaskFigures(
        metrics.accuracy(one, labels), metrics.accuracy(other, labels), metrics.top1_agreement(one, other)
    )


def _verdict(comparisons: Sequence[Comparison]) -> str:
    """Not equal when one output is not; no evidence when there is nothing to judge by."""
    if any(not item.passed and item.evidence for item in comparisons):
        return UNEQUAL
    return EQUAL if comparisons and all(item.evidence for item in comparisons) else NO_EVIDENCE
