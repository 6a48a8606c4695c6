"""Import of a user's model into a source folder; runs inside a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import SOURCES, LoadedModel, UserModel, fixed_inputs, with_layouts
from edgekit.core.environment.atomic_files import sha256_file, sha256_path
from edgekit.core.environment.damaged_files import damage_reported
from edgekit.core.environment.python_dependencies import module_file
from edgekit.core.environment.requirements import require, versions
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Listener, ProgressEvent
from edgekit.core.numerics import batching
from edgekit.core.numerics.labels import Labels, read_labels
from edgekit.core.numerics.metrics import TASK_METRICS, Array
from edgekit.core.numerics.random_inputs import UnknownSize, random_inputs
from edgekit.core.numerics.rounding_error import Rounding, measure_rounding, perturbed, with_conditioning
from edgekit.core.numerics.sample_order import split_order
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.fixed_inputs import Number, without_fixed
from edgekit.core.values.preprocessing import PIXEL_RANGE, ImageSteps, Preprocessing, resolve, with_raw, without_raw
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.core.values.synthetic_samples import SYNTHETIC
from edgekit.sources import _given_samples
from edgekit.stages.models.repeatability import make_repeatable, snapshot
from edgekit.stages.models.synthetic_samples import SyntheticSamples, synthesize
from edgekit.workers.job import worker_job

# At most this many of the user's samples become golden samples: the number that reference models have.
GOLDEN = 64
# At most this many of the user's samples become calibration samples: ranges hardly change with more.
CALIBRATION = 256
# The number of golden samples that are computed again with inputs moved by one unit in the last place.
CONDITIONING = 16
# Fixed, so that an import is reproducible.
_SEED = 0
# The shares of labelled samples are 1/4 golden, 1/4 calibration and 1/2 test; without labels there is no test set.
_GOLDEN_DIVISOR_LABELLED, _GOLDEN_DIVISOR = 4, 2
# What a network is for whose labels serve this metric.
_TASKS = {"accuracy": "classification", "mae": "regression"}
# Length at which a framework's error is cut: some print a whole graph.
_MAX_REASON_CHARS = 200


@dataclass(frozen=True)
class ImportRequest:
    """An import of one model. Paths are absolute.

    Attributes:
        name: Name of the model in build/.
        kind: The source kind.
        base: Folder that `code` and `calibration` are relative to.
        path: The model file or folder; None for code.
        code: `FILE.py:FUNCTION` or `MODULE:FUNCTION`; None for a file.
        weights: Weights for `code`.
        inputs: The inputs that the user declared.
        sizes: Sizes of symbolic dimensions by name, for random samples.
        sample: File with real inputs.
        calibration: Calibration samples: a file, a folder of images, `file.py:generator`, or `synthetic`.
        image_range: The range that pixels 0..255 of images are scaled to.
        signature: Name of the signature of a SavedModel; None for the default one.
        fixed: Values of inputs that become constants, by name.
        preprocess: Steps that are put in front of inputs.
        folder: The source folder to write.
    """

    name: str
    kind: str
    base: str
    path: str | None = None
    code: str | None = None
    weights: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    sizes: Mapping[str, int] | None = None
    sample: str | None = None
    calibration: str | None = None
    image_range: tuple[float, float] = (0.0, 1.0)
    signature: str | None = None
    fixed: Mapping[str, Number] = field(default_factory=dict)
    preprocess: tuple[ImageSteps, ...] = ()
    folder: str = ""


@dataclass(frozen=True)
class FactoryRequest:
    """The user's code `FILE.py:FUNCTION` or `MODULE:FUNCTION`, relative to a base folder."""

    code: str
    base: str


def import_step(name: str, kind: str) -> str:
    """Return the name of the step that imports a model."""
    return f"import {name}/{kind}"


@worker_job
def detect_framework(request: FactoryRequest, _emit: Listener) -> str:
    """Return the framework of the model that code builds, `keras` or `torch`.

    Args:
        request: The code.
        _emit: Receives no events.

    Raises:
        InputError: The code cannot be executed, or builds something else.
    """
    code = request.code
    model = Factory.parse(code).call(Path(request.base))
    packages = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    # On the torch backend a Keras model is a torch module too: the subclass is tested first.
    for framework in ("keras", "torch"):
        if framework in packages:
            return framework
    raise InputError(f"{code}: returned {type(model).__name__}; it must return a torch.nn.Module or a keras.Model")


@worker_job
def import_user_model(request: ImportRequest, emit: Listener) -> SourceModel:
    """Write the model, its samples and its description into the request's folder.

    Args:
        request: The import.
        emit: Receives the progress of a synthesis of samples.

    Returns:
        The description of the source.

    Raises:
        InputError: Model, code, weights, declared inputs and samples do not match each other.
        MissingDependency: The framework is not installed.
    """
    kind = SOURCES.load(request.kind)
    require(kind.requires, f"loading {request.kind} models")
    packages = kind.requires
    if request.calibration == SYNTHETIC:
        require(kind.synthesis_requires, f"synthesizing samples from {request.kind} models")
        packages += kind.synthesis_requires
    if request.signature is not None and not kind.has_signatures:
        raise InputError(
            f"{request.path or request.code}: only a SavedModel has signatures to choose from",
            parameters=("signature",),
        )
    base, target = Path(request.base), Path(request.folder)
    arrays, labels = _sample_arrays(request)
    factory = None if request.code is None else Factory.parse(request.code)
    build = None if factory is None else lambda: factory.call(base)
    user_model = UserModel(
        _path(request.path),
        build,
        _path(request.weights),
        request.inputs,
        _model_examples(request, arrays),
        signature=request.signature,
        fixed=request.fixed,
    )
    with _file_errors(request):
        file, complete = kind.import_model(user_model, target)
    # A kind that writes them into the file returns a signature without them.
    fixed = () if kind.writes_fixed else fixed_inputs(user_model, complete, numbers=kind.takes_numbers)
    varying = without_fixed(complete, fixed)
    layout = "NHWC" if kind.layout == "last" else "NCHW"
    steps = resolve(varying, request.preprocess, str(request.path or request.code), layout)
    signature = with_layouts(with_raw(varying, steps), kind.layout)
    if arrays is not None:  # the same samples serve with and without fixed inputs
        arrays = {name: array for name, array in arrays.items() if name not in request.fixed}
    inputs, notes = _inputs(request, arrays, signature, steps)
    sizes = _sizes(signature, inputs)
    with _file_errors(request):
        loaded = kind.load(target / file, _of_file(complete, steps, kind.layout), build)
        loaded = loaded.with_fixed(fixed).with_preprocessing(steps)
        loaded = loaded.at(signature, sizes).with_examples(inputs)
    parameters = loaded.parameters()
    _check_finite(parameters)
    initial = snapshot(loaded)
    signature = with_layouts(Signature(signature.inputs, observed_outputs(loaded, inputs)), kind.layout)
    sizes |= _output_sizes(loaded.at(signature, sizes), inputs)
    loaded = loaded.at(signature, sizes)
    repeatability = make_repeatable(loaded, inputs, initial)
    synthetic = _synthetic(request, loaded, emit)
    if synthetic is not None and synthetic.golden:
        inputs, notes = dict(synthetic.golden), ()
        loaded = loaded.with_examples(inputs)
    notes = (*notes, *((synthetic.note,) if synthetic is not None else ()), *repeatability.notes)
    calibration = _calibration(request, signature, synthetic, steps)
    known = None if labels is None else _read_labels(labels, signature, inputs, sizes)
    values = None if known is None else known.values
    parts = _split_samples(signature, inputs, values, calibration, real=arrays is not None)
    metric = None if known is None or TEST_FILE not in parts else known.metric
    metric_value, rounding = _write_samples(parts, loaded, target, metric)
    if known is not None and known.note:
        notes = (*notes, known.note)
    notes = (*notes, *user_model.notes, *loaded.notes)
    notes += tuple(f"the input {name} is fixed to {value}" for name, value in request.fixed.items())
    notes += tuple(f"the input {item.spec.name} is preprocessed: {item}" for item in steps)
    code = None if factory is None else factory.file(base) or module_file(factory.where, base)
    source = SourceModel(
        name=request.name,
        kind=request.kind,
        file=file,
        sha256=sha256_path(target / file),
        signature=signature,
        task=None if metric is None else _TASKS[metric],
        metric=metric,
        metric_value=metric_value,
        parameters=sum(array.size for array in parameters.values()),
        code=request.code,
        code_sha256=None if code is None else sha256_file(code),
        sizes=sizes,
        notes=notes,
        data={
            **_data_record(request, parts, by_class=known is not None and known.metric == "accuracy"),
            **({} if synthetic is None else {"synthetic": synthetic.record}),
        },
        rounding=rounding,
        state=repeatability.state,
        one_by_one=repeatability.one_by_one,
        fixed=fixed,
        preprocessing=steps,
        versions=versions(packages),
    )
    source.save(target)
    return source


def _model_examples(request: ImportRequest, arrays: Mapping[str, Array] | None) -> Mapping[str, Array] | None:
    """Return samples that the model itself takes: random numbers in place of images, whose steps are not known yet.

    Images of inputs that are not declared are left out, since their shape is not that of the input.
    """
    if arrays is None or not request.preprocess:
        return arrays
    names = [steps.input for steps in request.preprocess]
    if len(arrays) == len(names) == 1:  # a single array serves for a single input, whatever its name
        arrays = {names[0]: next(iter(arrays.values()))}
    declared = {spec.name for spec in request.inputs}
    known = [steps for steps in request.preprocess if steps.input in declared]
    specs = resolve(Signature(request.inputs, ()), known, str(request.path or request.code), "NCHW")
    generator = np.random.default_rng(_SEED)
    examples = {name: array for name, array in arrays.items() if name not in names}
    for item in specs:
        if item.spec.name in arrays:
            shape = [len(arrays[item.spec.name]), *(dim for dim in item.spec.shape[1:] if isinstance(dim, int))]
            examples[item.spec.name] = generator.standard_normal(shape).astype(item.spec.dtype)
    return examples or None


def _of_file(complete: Signature, steps: Sequence[Preprocessing], layout: str) -> Signature:
    """Return the signature that the file is loaded with: inputs behind the steps have the size that these lead to."""
    return with_layouts(without_raw(complete, steps), layout)


@contextlib.contextmanager
def _raw_images(steps: Sequence[Preprocessing]) -> Iterator[None]:
    """Have errors of samples say that they are images from before the steps, if there are any steps."""
    try:
        yield
    except InputError as error:
        if not steps:
            raise
        listed = "; ".join(str(item.raw) for item in steps)
        parameters = (*error.parameters, "preprocess")
        raise InputError(
            f"{error}; samples are the images in front of the preprocessing ({listed})", parameters=parameters
        ) from error


def _synthetic(request: ImportRequest, loaded: LoadedModel, emit: Listener) -> SyntheticSamples | None:
    """Synthesize calibration samples if they were asked for, and golden samples if there are no real ones."""
    if request.calibration != SYNTHETIC:
        return None
    if request.preprocess:
        raise InputError(
            "samples cannot be synthesized in front of preprocessing; pass images", parameters=("calibration",)
        )
    # As the network was loaded: `one_by_one` says that outputs depend on the batch, which statistics are meant to.
    step = import_step(request.name, request.kind)
    return synthesize(
        loaded, golden=request.sample is None, progress=lambda done, total: emit(ProgressEvent(step, done, total))
    )


def _calibration(
    request: ImportRequest,
    signature: Signature,
    synthetic: SyntheticSamples | None,
    steps: Sequence[Preprocessing],
) -> dict[str, Array]:
    """Return the calibration samples that the user named, by input name; none if the sample is to be split."""
    if synthetic is not None:
        return dict(synthetic.calibration)
    if not request.calibration:
        return {}
    image_range = PIXEL_RANGE if steps else request.image_range
    orders = {item.spec.name: item.channels for item in steps}
    with _raw_images(steps):
        return _given_samples.read(request.calibration, Path(request.base), signature, image_range, orders)


def _check_finite(parameters: Mapping[str, Array]) -> None:
    """Raise InputError for weights that are not numbers.

    Infinities are allowed in masks, whose other values are all the same.
    """
    for name, array in parameters.items():
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        finite = array[np.isfinite(array)]
        if np.isnan(array).any() or (finite.size and (finite != finite.flat[0]).any()):
            what = "NaN" if np.isnan(array).any() else "infinity"
            raise InputError(
                f"the weights '{name}' contain {what} ({array.size - finite.size} of {array.size} values): the training"
                " diverged, or the file is damaged"
            )


def _file_errors(request: ImportRequest) -> contextlib.AbstractContextManager[None]:
    """Return what reports damage of the model's file. Errors of the user's code are reported as they are."""
    if request.path is None:
        return contextlib.nullcontext()
    return damage_reported(Path(request.path), f"the source kind {request.kind}")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _sample_arrays(request: ImportRequest) -> tuple[dict[str, Array] | None, Array | None]:
    """Return the user's samples by name, and their labels."""
    if request.sample is None:
        return None, None
    arrays = _given_samples.read_arrays(Path(request.sample))
    labels = arrays.pop("labels", None)
    if "" in arrays:  # an npy file has one array without a name
        arrays = {"input": arrays.pop("")}
    return arrays, labels


def _read_labels(labels: Array, signature: Signature, inputs: Mapping[str, Array], sizes: Mapping[str, int]) -> Labels:
    """Return the labels of the first output, which is the one that task metrics judge."""
    output = signature.outputs[0]
    count = batching.n_samples(signature, inputs)
    # A matrix of all pairs of samples has the number of samples in its second dimension as well.
    known = {
        **sizes,
        **{spec.shape[0]: count for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)},
    }
    shape = tuple(known[dim] if isinstance(dim, str) else dim for dim in output.shape[1:])
    return read_labels(labels, count, output.name, shape)


def _inputs(
    request: ImportRequest,
    arrays: Mapping[str, Array] | None,
    signature: Signature,
    steps: Sequence[Preprocessing],
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the samples to run the model on, and notes: the user's samples, or random numbers."""
    if arrays is not None:
        with _raw_images(steps):
            fitted = _given_samples.fitted(arrays, signature, str(request.sample))
        batching.n_samples(signature, fitted)
        return fitted, ()
    try:
        inputs = random_inputs(signature, request.sizes or {})
    except UnknownSize as error:
        raise InputError(f"{error}; set it, or pass a sample of real inputs", parameters=("dims", "sample")) from None
    generator = np.random.default_rng(_SEED)
    for item in steps:
        shape = inputs[item.spec.name].shape
        inputs[item.spec.name] = generator.integers(0, 256, shape).astype(item.dtype)
    return inputs, ("golden samples are random numbers; pass a sample of real inputs (npz or npy)",)


def _sizes(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Return the size in the samples of every symbolic dimension except the first one of an input."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        for dim, size in zip(spec.shape[1:], inputs[spec.name].shape[1:], strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise InputError(f"the dimension {dim} has two sizes in the samples, {sizes[dim]} and {size}")
    return sizes


def observed_outputs(loaded: LoadedModel, inputs: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """Run the model once and return its outputs with their shapes and dtypes.

    A dimension is the batch if it follows the number of samples: the model is called with two and with three. Whether a
    file names a dimension, and that the first one usually is the batch, decides nothing: hidden states of two layers
    have 2 rows for any number of samples. Any other dimension is symbolic if it follows a symbolic dimension of an
    input, whose size is changed to see that: an equal size in the samples may be a coincidence. Where the model takes
    no other size, the signature decides, and else equality.

    Args:
        loaded: The model.
        inputs: At least one sample by input name, shape (N, ...).

    Raises:
        InputError: The model does not run on these inputs.
        StepFailed: The number of outputs is not that of the signature.
    """
    signature = loaded.signature
    # With a batch of two, the batch dimension of an output shows: a size of 1 would be ambiguous.
    pair = {name: np.concatenate([array[:1], array[:1]]) for name, array in inputs.items()}
    arguments = next(batching.iter_batches(signature, pair if signature.batch else inputs, 2))
    if signature.batch:
        arguments = [pair[spec.name] for spec in signature.inputs]
    try:
        results = [np.asarray(result) for result in loaded._run(arguments)]
    except InputError:
        raise
    except Exception as error:  # frameworks raise any class for inputs that do not match
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"the model does not run on these inputs: {reason[:_MAX_REASON_CHARS]}") from error
    if len(results) != len(signature.outputs):
        raise StepFailed(f"the model returns {len(results)} outputs, but its file declares {len(signature.outputs)}")
    larger = _run_on_three(loaded, pair) if signature.batch else [None] * len(results)
    followers = _followers(loaded, arguments, results)
    return tuple(
        replace(spec, shape=_output_shape(spec, result, other, loaded, follows), dtype=str(result.dtype))
        for spec, result, other, follows in zip(signature.outputs, results, larger, followers, strict=True)
    )


def _followers(
    loaded: LoadedModel, arguments: Sequence[Array], results: Sequence[Array]
) -> list[Mapping[int, str] | None]:
    """Return which axes of each output follow a symbolic dimension of an input, by running the model on a larger one.

    Args:
        loaded: The model.
        arguments: The inputs of a call.
        results: The outputs of that call.

    Returns:
        For each output, the symbol by axis; an axis whose size changes otherwise has a symbol of its own. None for all
        outputs of a model that does not take another size.
    """
    signature = loaded.signature
    followers: list[dict[int, str]] = [{} for _ in results]
    for symbol in signature.symbols:
        if symbol not in loaded.sizes or symbol == signature.batch:
            continue
        try:
            # Twice the size: strides that divide it divide that as well.
            enlarged = [_doubled(array, spec, symbol) for array, spec in zip(arguments, signature.inputs, strict=True)]
            others = [np.asarray(result) for result in loaded._run(enlarged)]
        except Exception:  # noqa: BLE001 - frameworks raise any class for a size that the model does not take
            return [None] * len(results)
        size = loaded.sizes[symbol]
        for spec, result, other, follows in zip(signature.outputs, results, others, followers, strict=True):
            if other.ndim != result.ndim:
                return [None] * len(results)
            for axis, (before, after) in enumerate(zip(result.shape, other.shape, strict=True)):
                if after != before:
                    same = before == size and after == 2 * size and axis not in follows
                    follows[axis] = symbol if same else f"{spec.name}_dim{axis}"
    return list(followers)


def _doubled(array: Array, spec: TensorSpec, symbol: str) -> Array:
    """Return the input with its values repeated along each axis of the symbol."""
    for axis, dim in enumerate(spec.shape):
        if dim == symbol:
            array = np.concatenate([array, array], axis)
    return array


def _output_sizes(loaded: LoadedModel, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Return the size in the samples of each symbolic dimension that only outputs have, and that follows an input's."""
    specs = loaded.signature.outputs
    known = {*loaded.signature.symbols, *loaded.sizes}
    if not loaded.sizes or all(dim in known for spec in specs for dim in spec.shape if isinstance(dim, str)):
        return {}
    results = loaded._run(next(batching.iter_batches(loaded.signature, inputs, 1)))
    return {
        dim: size
        for spec, result in zip(specs, results, strict=True)
        for dim, size in zip(spec.shape, np.asarray(result).shape, strict=True)
        if isinstance(dim, str) and dim not in known
    }


def _run_on_three(loaded: LoadedModel, pair: Mapping[str, Array]) -> list[Array | None]:
    """Return the outputs for three samples; None for each where the model does not take three."""
    specs = loaded.signature.inputs
    try:
        three = [np.concatenate([pair[spec.name], pair[spec.name][:1]]) for spec in specs]
        results: list[Array | None] = [np.asarray(result) for result in loaded._run(three)]
    except Exception:  # noqa: BLE001 - such a model is measured with two samples alone
        results = []
    return results if len(results) == len(loaded.signature.outputs) else [None] * len(loaded.signature.outputs)


def _output_shape(
    spec: TensorSpec, result: Array, larger: Array | None, loaded: LoadedModel, follows: Mapping[int, str] | None
) -> tuple[Dim, ...]:
    """Return the shape of an output, of its results for two and for three samples and the axes that follow a symbol."""
    batch, symbols = loaded.signature.batch, {*loaded.signature.symbols}
    symbol_by_size = {size: name for name, size in loaded.sizes.items()}
    sizes = larger.shape if larger is not None and larger.ndim == result.ndim else None
    shape: list[Dim] = []
    for index, size in enumerate(result.shape):
        declared = spec.shape[index] if index < len(spec.shape) else None
        if batch is not None and size == 2 and (index == 0 if sizes is None else sizes[index] == 3):
            shape.append(batch)
        elif sizes is not None and sizes[index] != size:  # two rows a sample, or all pairs of samples
            shape.append(f"{spec.name}_dim{index}")
        elif follows is not None:
            shape.append(follows.get(index, size))
        elif isinstance(declared, str) and declared in symbols - {batch}:
            shape.append(declared)
        else:
            shape.append(symbol_by_size.get(size, size) if index and not isinstance(declared, int) else size)
    return tuple(shape)


def _split_samples(
    signature: Signature,
    inputs: dict[str, Array],
    labels: Array | None,
    calibration: dict[str, Array],
    *,
    real: bool,
) -> dict[str, tuple[dict[str, Array], Array | None]]:
    """Return disjoint golden, calibration and test samples by file name; the latter two may be missing.

    Samples are drawn, not cut off in the file's order: in a file sorted by class, each part would be a few classes.
    Random numbers serve to compare outputs, but not to calibrate: their ranges are not those of real inputs.
    """
    total = batching.n_samples(signature, inputs)
    if not real:
        golden_only: dict[str, tuple[dict[str, Array], Array | None]] = {GOLDEN_FILE: (inputs, None)}
        return golden_only | ({CALIBRATION_FILE: (calibration, None)} if calibration else {})
    divisor = _GOLDEN_DIVISOR if labels is None else _GOLDEN_DIVISOR_LABELLED
    golden = max(1, min(GOLDEN, total if calibration and labels is None else total // divisor))
    end = golden if calibration else golden + min(CALIBRATION, (total - golden) // (1 if labels is None else 3))

    # An incomplete last batch stays the last one.
    complete = min(len(inputs[spec.name]) // batching.samples_per_call(spec) for spec in signature.inputs)
    drawn = split_order(complete, None if labels is None else labels[:complete], _SEED)
    order = np.concatenate([drawn, np.arange(complete, total)])

    def part(start: int, stop: int | None) -> tuple[dict[str, Array], Array | None]:
        indices = order[start:stop]
        return batching.take_samples(signature, inputs, indices), None if labels is None else labels[indices]

    parts = {GOLDEN_FILE: part(0, golden)}
    if calibration:
        parts[CALIBRATION_FILE] = calibration, None
    elif end > golden:
        parts[CALIBRATION_FILE] = part(golden, end)
    if labels is not None and end < total:
        parts[TEST_FILE] = part(end, None)
    return parts


def _write_samples(
    parts: Mapping[str, tuple[dict[str, Array], Array | None]], loaded: LoadedModel, folder: Path, metric: str | None
) -> tuple[float | None, dict[str, Rounding]]:
    """Write the samples with the model's own outputs.

    Returns:
        The metric on the test samples if they have labels, and the rounding error of float32 on the golden samples.
    """
    value, rounding = None, {}
    for file, (inputs, labels) in parts.items():
        outputs = loaded.run(inputs) if file != CALIBRATION_FILE else {}
        _check_numbers(outputs)
        Samples(inputs, outputs, labels).save(folder / file)
        if file == GOLDEN_FILE:
            rounding = measure_rounding(outputs, loaded.run_float64(inputs))
            few = min(CONDITIONING, batching.n_samples(loaded.signature, inputs))
            moved = loaded.run(perturbed(batching.select_samples(loaded.signature, inputs, 0, few)))
            rounding = with_conditioning(rounding, outputs, moved)
        if file == TEST_FILE and metric is not None and labels is not None:
            first, given = next(iter(outputs.values())), next(iter(inputs.values()))
            value = TASK_METRICS[metric].compute(first, labels, given)
    return value, rounding


def _check_numbers(outputs: Mapping[str, Array]) -> None:
    """Raise InputError for an output that is not a number: nothing can be compared with it."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise InputError(
                f"the model's output '{name}' contains NaN ({int(np.isnan(array).sum())} of {array.size} values) for"
                " these samples; pass samples for which it computes numbers",
                parameters=("sample",),
            )


def _data_record(
    request: ImportRequest, parts: Mapping[str, tuple[dict[str, Array], Array | None]], *, by_class: bool
) -> dict[str, Any]:
    counts = {file.removesuffix(".npz"): len(next(iter(inputs.values()))) for file, (inputs, _) in parts.items()}
    named = None if request.calibration == SYNTHETIC else request.calibration
    names = {"sample": request.sample, "calibration_from": named}
    split = {} if request.sample is None else {"split": f"drawn with seed {_SEED}" + (", by class" if by_class else "")}
    return {**counts, **split, **{key: Path(value).name for key, value in names.items() if value}}
