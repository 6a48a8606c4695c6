"""The compare stage: judges whether two model files of any origin are equivalent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgekit.contracts.source import SOURCES
from edgekit.contracts.target import Target
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError
from edgekit.core.numerics import metrics
from edgekit.core.numerics.applicable_tolerances import tolerances_for_precision
from edgekit.core.numerics.labels import read_labels
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.output_comparison import Comparison, compare_output
from edgekit.core.numerics.tensor_pairing import TensorPair, check_forced, pair_by_values, pair_tensors
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import load_source
from edgekit.core.values.file_names import MANIFEST_FILE, SOURCE_FILE
from edgekit.core.values.fixed_inputs import FixedInput, Number, check_value
from edgekit.core.values.precisions import find_precision, parse_precision, precision_names, precision_of_width
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.core.values.tolerances import Tolerances
from edgekit.sources._given_samples import fitted, read_arrays
from edgekit.stages.context import Context, runtime_environment, source_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.inspect import describe
from edgekit.stages.models import model_refs
from edgekit.stages.models.mlflow_folder import model_inside
from edgekit.stages.models.recorded_code import recorded_code
from edgekit.stages.validation import model_run_job
from edgekit.stages.validation.model_run_job import ModelCall, ModelRef, stamp_of
from edgekit.workers.job import WorkerJob

# The verdicts of a comparison. The last one means that the samples do not distinguish the models: a constant output.
EQUAL, UNEQUAL, NO_EVIDENCE = "equal", "not equal", "no evidence"
# Scales, zero points and biases beside the weights may raise the bytes per parameter above the weights' width so much.
_WIDTH_MARGIN = 1.5

T = TypeVar("T")


@dataclass(frozen=True)
class TaskFigures:
    """The metrics of two classifiers on labelled samples.

    Attributes:
        first_accuracy: Accuracy of the first model.
        second_accuracy: Accuracy of the second model.
        top1_agreement: Share of the samples that both models assign to the same class.
    """

    first_accuracy: float
    second_accuracy: float
    top1_agreement: float


@dataclass(frozen=True)
class Equivalence:
    """The result of comparing two models.

    Attributes:
        first: The first model, which is the reference, as the user named it.
        second: The second model.
        verdict: `equal`, `not equal` or `no evidence`.
        precision: The precision whose tolerances were applied.
        inputs: The pairs of inputs.
        outputs: The pairs of outputs.
        unpaired: Inputs and outputs that only one model has, as `MODEL: TENSOR`.
        comparisons: The comparison of each pair of outputs.
        task: The metrics on labelled samples, or None without labels.
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
    """Return the model that a text stands for.

    Args:
        context: The project and the workers.
        text: An artifact's folder, a model file, a source folder, or code as `FILE.py:FUNCTION`.

    Raises:
        InputError: The text is none of these, or the artifact is damaged.
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
    path = model_inside(path)
    target = target_of(path)
    try:
        # A source file of a target's format exposes its intermediates through the target's runtime.
        target_name = None if target is None else target.name
        kind = model_refs.kind_of(path)
        if target is None or not SOURCES.load(kind).compared_by_runtime:
            return ModelRef(text, target=target_name, kind=kind, path=str(path.resolve()), stamp=stamp_of(path))
    except InputError:
        if target is None or not path.is_file():
            raise
    return ModelRef(text, target=target.name, runtime=target.runtime, path=str(path.resolve()), stamp=stamp_of(path))


def source_ref(context: Context, folder: Path) -> ModelRef:
    """Return the source in a source folder.

    Args:
        context: The project.
        folder: The folder of a trained or imported source.

    Raises:
        InputError: The description of the source is missing or damaged.
    """
    source = load_source(folder)
    model = ModelRef(
        str(folder),
        kind=source.kind,
        folder=str(folder.resolve()),
        recorded_code=recorded_code(context, source),
        stamp=stamp_of(folder),
    )
    target = target_of(Path(source.file))
    if target is None or target.name != source.kind:
        return model
    return replace(model, target=target.name, path=str(path_inside(folder, source.file).resolve()))


def artifact_of(path: Path) -> Artifact | None:
    """Return the artifact whose folder or model file a path is, or None.

    Args:
        path: A folder or a file.

    Raises:
        InputError: The manifest is damaged.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / MANIFEST_FILE).is_file():
        return None
    artifact = load_artifact(folder)
    return artifact if path.is_dir() or artifact.path.resolve() == path.resolve() else None


def target_of(path: Path) -> Target | None:
    """Return the target whose files have the suffix of a path, or None."""
    return next((target for target in routes.targets().values() if path.suffix.lower() in target.suffixes), None)


def call_worker(
    context: Context, job: WorkerJob[ModelCall, T], model: ModelRef, inputs: Mapping[str, Array], verb: str
) -> T:
    """Run a job on a model, in the worker of its runtime or of its framework.

    Args:
        context: The project and the workers.
        job: The job.
        model: The model.
        inputs: Samples by input name, shape (N, ...).
        verb: The first word of the step's name, such as `run`.

    Returns:
        The answer of the job.

    Raises:
        InputError: The model or the samples are invalid.
        MissingDependency: A package is not installed.
        StepError: The worker crashed.
    """
    if model.runtime is not None:
        environment = runtime_environment(model.runtime)
    else:
        recorded = None if model.recorded_code is None else model.recorded_code.reference
        code = model.code or recorded
        environment = source_environment(str(model.kind), code)
    return context.pool.call(
        job,
        ModelCall(model, inputs),
        step=f"{verb} {model.label}",
        environment=environment,
        listener=context.emit,
    )


def read_signature(context: Context, model: ModelRef, samples: Mapping[str, Array]) -> Signature:
    """Return the signature of a model.

    Args:
        context: The project and the workers.
        model: The model.
        samples: Samples by input name, shape (N, ...); they define the inputs of a file without a signature.

    Raises:
        InputError: The model cannot be opened, or does not accept these samples.
        MissingDependency: A package is not installed.
        StepError: The worker crashed.
    """
    return call_worker(context, model_run_job.read_signature, model, samples, "open")


def run_model(context: Context, model: ModelRef, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a model.

    Args:
        context: The project and the workers.
        model: The model.
        inputs: Inputs by the model's own names, shape (N, ...).

    Returns:
        The outputs by the model's own names, shape (N, ...).

    Raises:
        InputError: The model does not accept these inputs.
        MissingDependency: A package is not installed.
        StepError: The worker crashed.
    """
    return call_worker(context, model_run_job.run_model, model, inputs, "run")


@dataclass(frozen=True)
class PairedInputs:
    """The inputs of two models for the same samples.

    Attributes:
        pairs: The pairs of inputs.
        only_first: Inputs that only the first model has.
        only_second: Inputs that only the second model has.
        first: Arrays by the first model's names, shape (N, ...).
        second: Arrays by the second model's names, shape (N, ...).
    """

    pairs: tuple[TensorPair, ...]
    only_first: tuple[TensorSpec, ...]
    only_second: tuple[TensorSpec, ...]
    first: Mapping[str, Array]
    second: Mapping[str, Array]


def inputs_of(
    models: tuple[ModelRef, ModelRef],
    signatures: Sequence[Signature],
    arrays: Mapping[str, Array],
    forced: Mapping[str, str],
    origin: str,
) -> PairedInputs:
    """Assign samples to the inputs of two models.

    Args:
        models: The models.
        signatures: Their signatures.
        arrays: The samples by name, shape (N, ...), in the layout of either model.
        forced: Names of the second model by names of the first, as the user set them.
        origin: Where the samples come from, for messages.

    Raises:
        InputError: The samples do not match the inputs, or an input of the second model has neither counterpart nor
            samples.
    """
    pairs, only_first, only_second = pair_tensors(signatures[0].inputs, signatures[1].inputs, forced)
    firsts = _inputs_of_first(signatures, pairs, arrays, origin)
    seconds = _inputs_of_second(pairs, only_second, arrays, firsts, models[1].label)
    return PairedInputs(pairs, only_first, only_second, firsts, seconds)


def _inputs_of_first(
    signatures: Sequence[Signature], pairs: Sequence[TensorPair], samples: Mapping[str, Array], origin: str
) -> dict[str, Array]:
    """Return the first model's inputs from samples that may be for the second model, or in its layout."""
    first, second = signatures
    names = {spec.name for spec in first.inputs}
    candidates = {name: array for name, array in samples.items() if name in names} if names <= set(samples) else samples
    try:
        return fitted(candidates, first, origin)
    except InputError:
        if {pair.first.name for pair in pairs} != names:
            raise
        try:
            seconds = fitted(samples, second, origin)
        except InputError:
            seconds = {}
        if not seconds:
            raise
        return {pair.first.name: pair.reverse.forward(seconds[pair.second.name]) for pair in pairs}


def _inputs_of_second(
    pairs: Sequence[TensorPair],
    only_second: Sequence[TensorSpec],
    samples: Mapping[str, Array],
    firsts: Mapping[str, Array],
    label: str,
) -> dict[str, Array]:
    """Return the second model's inputs: samples of the same name, otherwise the first model's in its layout."""
    inputs = {}
    for pair in pairs:
        array = samples.get(pair.second.name) if pair.second.name not in firsts else None
        chosen = pair.forward(firsts[pair.first.name]) if array is None else array
        # A model in float16 and its counterpart in float32 take the same samples, each in its own type.
        inputs[pair.second.name] = _cast(chosen, np.dtype(pair.second.dtype))
    for spec in only_second:
        if spec.name not in samples:
            raise InputError(
                f"no input of the first model matches the input {spec} of {label}; add an array of that name to the"
                " samples, or pair it with an input of the first model",
                parameters=("pairs",),
            )
        inputs[spec.name] = samples[spec.name]
    return inputs


def specs(outputs: Mapping[str, Array]) -> list[TensorSpec]:
    """Return the specs of computed outputs, shape (N, ...), with a symbolic batch."""
    return [TensorSpec(name, ("batch", *array.shape[1:]), str(array.dtype)) for name, array in outputs.items()]


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Cast floats to another floating-point type; return what either type is not floating-point for as it is."""
    both = all(np.issubdtype(kind, np.floating) for kind in (array.dtype, dtype))
    return array.astype(dtype) if both else array


def precision_of(context: Context, model: ModelRef) -> str:
    """Return the precision of a model.

    It is the precision of an artifact's manifest. Of any other file it is that of the width of its weights; with
    quantized tensors, `int8` or narrower.

    Args:
        context: The project and the workers.
        model: The model.

    Raises:
        MissingDependency: A package that reads the format is not installed.
        StepError: The worker crashed while reading the file.
    """
    artifact = None if model.path is None else artifact_of(Path(model.path))
    if artifact is not None:
        return artifact.manifest.precision
    target = None if model.path is None else target_of(Path(model.path))
    if target is None or not Path(str(model.path)).is_file() or not target.describe_tells_precision:
        return "float32"
    try:
        description = describe(context, target.name, Path(str(model.path)), f"read {model.label}")
    except InputError:
        return "float32"
    if not description.parameters:
        return "int8" if description.quantized_tensors else "float32"
    width = 8 * description.weight_bytes / description.parameters / _WIDTH_MARGIN
    return precision_of_width(min(width, 8) if description.quantized_tensors else width)


def coarser_precision(context: Context, models: Sequence[ModelRef]) -> str:
    """Return the coarsest precision of models; see `precision_of`.

    Args:
        context: The project and the workers.
        models: The models.

    Returns:
        The precision that tolerates the lowest SQNR; of several, the last one in the table of precisions.
    """
    present = {precision_of(context, model) for model in models}
    names = [name for name in reversed(precision_names()) if name in present]
    return min(names, key=_tolerated_sqnr_db, default="float32")


def _tolerated_sqnr_db(precision: str) -> float:
    # Floating-point precisions are limited by their largest error; any limit on the SQNR is coarser.
    limit = find_precision(precision).tolerances.min_sqnr_db
    return math.inf if limit is None else limit


def compare(
    context: Context,
    texts: tuple[str, str],
    samples: Path | Mapping[str, Array],
    *,
    labels: Path | Array | None = None,
    forced: Mapping[str, str] | None = None,
    precision: str | None = None,
    fixed: Mapping[str, Number] | None = None,
) -> Equivalence:
    """Run two models on the same samples and compare their outputs.

    Args:
        context: The project and the workers.
        texts: The models as the user named them; the first one is the reference.
        samples: A file, or arrays by input name, shape (N, ...); both may contain `labels`.
        labels: Class labels, shape (N,), or a file with them; None uses those among the samples.
        forced: Names of the second model by names of the first that are paired; others are paired automatically.
        precision: The precision whose tolerances apply; None for the coarser one of the two models.
        fixed: Values of inputs that have no samples, by name: of whichever model has the input.

    Returns:
        The verdict, with the pairs and the comparisons.

    Raises:
        InputError: A file, the samples or the labels are invalid, or the inputs of the models do not match.
        MissingDependency: A package is not installed.
        StepError: A worker crashed while running a model.
    """
    if precision is not None:
        parse_precision(precision)
    first, second = (model_ref(context, text) for text in texts)
    origin = str(samples) if isinstance(samples, Path) else "the samples"
    arrays = read_arrays(samples) if isinstance(samples, Path) else dict(samples)
    classes = _read_labels(arrays.pop("labels", None), labels)
    arrays = {"input": arrays.pop("")} if "" in arrays else arrays  # an npy file has one array without a name
    signatures = [read_signature(context, model, arrays) for model in (first, second)]
    arrays = with_fixed(arrays, signatures, fixed or {})
    forced = forced or {}
    inputs = inputs_of((first, second), signatures, arrays, forced, origin)
    reference, actual = run_model(context, first, inputs.first), run_model(context, second, inputs.second)
    outputs, only_first, only_second = pair_tensors(specs(reference), specs(actual), forced)
    outputs = pair_by_values(outputs, reference, actual)
    check_forced(forced, (*signatures[0].inputs, *specs(reference)), (*signatures[1].inputs, *specs(actual)))
    precision = precision or coarser_precision(context, (first, second))
    tolerances = tolerances_for_precision(precision)
    comparisons = tuple(
        _compare_pair(
            pair,
            reference[pair.first.name],
            actual[pair.second.name],
            tolerances,
            classifier=classes is not None,
            layout=signatures[1].output_layouts.get(pair.second.name),
        )
        for pair in outputs
    )
    task = None if classes is None else _task_figures(outputs, reference, actual, classes)
    return Equivalence(
        first.label,
        second.label,
        _verdict(comparisons),
        precision,
        inputs.pairs,
        outputs,
        tuple(
            [f"{first.label}: {spec.name}" for spec in (*inputs.only_first, *only_first)]
            + [f"{second.label}: {spec.name}" for spec in (*inputs.only_second, *only_second)]
        ),
        comparisons,
        task,
    )


def with_fixed(
    arrays: Mapping[str, Array], signatures: Sequence[Signature], fixed: Mapping[str, Number]
) -> dict[str, Array]:
    """Return samples with the same value of each fixed input in every sample.

    Args:
        arrays: The samples by name, shape (N, ...).
        signatures: The signatures of the models.
        fixed: The values by name.

    Raises:
        InputError: No model has such an input, it cannot have the value, or there are samples of it.
    """
    specs = {spec.name: spec for signature in reversed(signatures) for spec in signature.inputs}
    result = dict(arrays)
    for name, value in fixed.items():
        if name not in specs:
            raise InputError(
                f"neither model has an input {name} to fix; their inputs: {'; '.join(map(str, specs.values()))}",
                parameters=("fixed",),
            )
        if name in arrays:
            raise InputError(f"the samples contain the input {name}, which is fixed too", parameters=("fixed",))
        check_value(specs[name], value)
        first = next(iter(arrays.values()))
        one = FixedInput(specs[name], 0, value).array()
        result[name] = np.repeat(one if one.shape else one[None], len(first), axis=0)
    return result


def _compare_pair(
    pair: TensorPair,
    reference: Array,
    actual: Array,
    tolerances: Tolerances,
    *,
    classifier: bool,
    layout: str | None,
) -> Comparison:
    expected = pair.forward(reference)
    name = pair.first.name if pair.first.name == pair.second.name else f"{pair.first.name}={pair.second.name}"
    return compare_output(
        name, expected, _cast(actual, expected.dtype), tolerances, classifier=classifier, layout=layout
    )


def _read_labels(among_samples: Array | None, labels: Path | Array | None) -> Array | None:
    if labels is None:
        return among_samples
    if not isinstance(labels, Path):
        return np.asarray(labels)
    arrays = read_arrays(labels)
    return arrays["labels"] if "labels" in arrays else next(iter(arrays.values()))


def _task_figures(
    pairs: Sequence[TensorPair], reference: Mapping[str, Array], actual: Mapping[str, Array], labels: Array
) -> TaskFigures:
    """Return the metrics of the first output. Raise InputError if the labels are not its classes."""
    pair = pairs[0]
    first, second = reference[pair.first.name], actual[pair.second.name]
    first, second = first.reshape(len(first), -1), second.reshape(len(second), -1)
    read = read_labels(labels, len(first), pair.first.name, first.shape[1:])
    if read.metric != "accuracy":
        raise InputError(f"labels of shape {labels.shape} and type {labels.dtype} are no classes of {pair.first.name}")
    classes = read.values
    return TaskFigures(
        metrics.accuracy(first, classes), metrics.accuracy(second, classes), metrics.top1_agreement(first, second)
    )


def _verdict(comparisons: Sequence[Comparison]) -> str:
    """Return UNEQUAL if an output fails, EQUAL if all pass and one at least varies, and NO_EVIDENCE otherwise."""
    if any(not comparison.passed for comparison in comparisons):
        return UNEQUAL
    return EQUAL if any(comparison.evidence for comparison in comparisons) else NO_EVIDENCE
