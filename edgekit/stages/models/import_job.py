"""Taking in a model of the user's; runs inside a worker. It becomes a source folder like that of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import SOURCES, LoadedModel, UserModel, with_layouts
from edgekit.core.environment.atomic_files import sha256_file, sha256_path
from edgekit.core.environment.requirements import require, versions
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import TASK_METRICS, Array
from edgekit.core.numerics.rounding_error import Rounding, measure_rounding
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.sources import _given_samples
from edgekit.workers.job import worker_job

GOLDEN = 64
CALIBRATION = 256
RANDOM_GOLDEN = 16
_SEED = 0


@dataclass(frozen=True)
class ImportRequest:
    """What the user said of the model. Paths are absolute; `code` and `calibration` are relative to `base`."""

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
    folder: str = ""


@dataclass(frozen=True)
class FactoryRequest:
    """The user's code `FILE.py:FUNCTION`, relative to a base folder."""

    code: str
    base: str


@worker_job
def detect_framework(request: FactoryRequest, _emit: Listener) -> str:
    """Return `keras` or `torch`: what the user's code builds. Raises InputError when it builds something else."""
    code = request.code
    made = Factory.parse(code).call(Path(request.base))
    families = [cls.__module__.partition(".")[0] for cls in type(made).__mro__]
    # On the torch backend a Keras model is a torch module too: the more special family comes first.
    for family in ("keras", "torch"):
        if family in families:
            return family
    raise InputError(f"{code}: what it makes is of type {type(made).__name__}, not a torch.nn.Module or keras.Model")


@worker_job
def import_user_model(request: ImportRequest, _emit: Listener) -> SourceModel:
    """Write the model, its samples and its description into the request's folder.

    Raises InputError when model, code, weights, declared inputs or samples do not fit one another.
    """
    kind = SOURCES.load(request.kind)
    require(kind.requires, f"loading {request.kind} models")
    base, target = Path(request.base), Path(request.folder)
    arrays, labels = _sample_arrays(request)
    factory = None if request.code is None else Factory.parse(request.code)
    build = None if factory is None else lambda: factory.call(base)
    given = UserModel(_path(request.path), build, _path(request.weights), request.inputs, arrays)
    file, found = kind.import_model(given, target)
    signature = with_layouts(found, kind.layout)
    inputs, notes = _inputs(request, arrays, signature)
    sizes = _sizes(signature, inputs)
    loaded = kind.load(target / file, signature, build).at(signature, sizes)
    signature = with_layouts(Signature(signature.inputs, observed_outputs(loaded, inputs)), kind.layout)
    loaded = loaded.at(signature, sizes)
    chosen = (
        _given_samples.read(request.calibration, base, signature, request.image_range) if request.calibration else {}
    )
    parts = _parts(signature, inputs, labels, chosen, real=arrays is not None)
    task, rounding = _write(parts, loaded, target)
    code = None if factory is None else factory.file(base)
    source = SourceModel(
        name=request.name,
        kind=request.kind,
        file=file,
        sha256=sha256_path(target / file),
        signature=signature,
        task="classification" if task is not None else None,
        metric="accuracy" if task is not None else None,
        metric_value=task,
        parameters=sum(array.size for array in loaded.parameters().values()),
        code=request.code,
        code_sha256=None if code is None else sha256_file(code),
        sizes=sizes,
        notes=notes,
        data=_data(request, parts),
        rounding=rounding,
        versions=versions(kind.requires),
    )
    source.save(target)
    return source


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _sample_arrays(request: ImportRequest) -> tuple[dict[str, Array] | None, Array | None]:
    """The user's samples by name, and their labels."""
    if request.sample is None:
        return None, None
    arrays = _given_samples.read_arrays(Path(request.sample))
    labels = arrays.pop("labels", None)
    if "" in arrays:
        arrays = {"input": arrays.pop("")}
    return arrays, labels


def _inputs(
    request: ImportRequest, arrays: Mapping[str, Array] | None, signature: Signature
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The samples that the model is run on: the user's, or random numbers, and a note that says so."""
    if arrays is not None:
        fitted = _given_samples.fitted(arrays, signature, str(request.sample))
        batching.n_samples(signature, fitted)
        return fitted, ()
    rng = np.random.default_rng(_SEED)
    sizes = dict(request.sizes or {})
    inputs = {spec.name: _random(spec, signature, sizes, rng) for spec in signature.inputs}
    return inputs, ("golden samples are random numbers; --sample FILE.npz takes real ones",)


def _random(spec: TensorSpec, signature: Signature, sizes: Mapping[str, int], rng: np.random.Generator) -> Array:
    shape = [RANDOM_GOLDEN * batching.samples_per_call(spec)]
    for dim in spec.shape[1:]:
        if isinstance(dim, str) and dim not in sizes:
            raise InputError(
                f"the dimension {dim} of {spec.name} has no size; give --dim {dim}=SIZE, or --sample FILE.npz"
            )
        shape.append(sizes[dim] if isinstance(dim, str) else dim)
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.standard_normal(shape).astype(spec.dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype)  # valid as a flag, a token and an index alike


def _sizes(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """The size in the samples of each symbolic dimension but the first of an input."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        for dim, size in zip(spec.shape[1:], inputs[spec.name].shape[1:], strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise InputError(f"the samples have the dimension {dim} as {sizes[dim]} and as {size}")
    return sizes


def observed_outputs(loaded: LoadedModel, inputs: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """The outputs as one call shows them; symbols stand where the signature has them, or where their size does."""
    signature = loaded.signature
    pair = {name: np.concatenate([array[:1], array[:1]]) for name, array in inputs.items()}
    arguments = next(batching.iter_batches(signature, pair if signature.batch else inputs, 2))
    if signature.batch:
        arguments = [pair[spec.name] for spec in signature.inputs]
    try:
        results = loaded._run(arguments)
    except InputError:
        raise
    except Exception as error:  # whatever a framework raises for inputs that it does not take
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        raise InputError(f"the model does not run on these inputs: {reason}") from error
    if len(results) != len(signature.outputs):
        raise StepFailed(f"the model returns {len(results)} outputs where its file names {len(signature.outputs)}")
    return tuple(
        replace(spec, shape=_shape(spec, result, loaded), dtype=str(result.dtype))
        for spec, result in zip(signature.outputs, map(np.asarray, results), strict=True)
    )


def _shape(spec: TensorSpec, result: Array, loaded: LoadedModel) -> tuple[Dim, ...]:
    batch, known = loaded.signature.batch, {*loaded.signature.symbols}
    by_size = {size: name for name, size in loaded.sizes.items()}
    shape: list[Dim] = []
    for index, size in enumerate(result.shape):
        named = spec.shape[index] if index < len(spec.shape) else None
        if isinstance(named, str) and named in known:
            shape.append(named)
        elif index == 0 and batch is not None and size == 2:
            shape.append(batch)
        else:
            shape.append(by_size.get(size, size) if index and not isinstance(named, int) else size)
    return tuple(shape)


def _parts(
    signature: Signature,
    inputs: dict[str, Array],
    labels: Array | None,
    calibration: dict[str, Array],
    *,
    real: bool,
) -> dict[str, tuple[dict[str, Array], Array | None]]:
    """Golden, calibration and test samples, disjoint; calibration and test only where there is something for them.

    Random numbers are good to compare outputs on, and no ground to take ranges from.
    """
    total = batching.n_samples(signature, inputs)
    if not real:
        made: dict[str, tuple[dict[str, Array], Array | None]] = {GOLDEN_FILE: (inputs, None)}
        return made | ({CALIBRATION_FILE: (calibration, None)} if calibration else {})
    if labels is not None and len(labels) != total:
        raise InputError(f"there are {len(labels)} labels for {total} samples")
    share = 4 if labels is not None else 2
    golden = max(1, min(GOLDEN, total if calibration and labels is None else total // share))
    end = golden if calibration else golden + min(CALIBRATION, (total - golden) // (1 if labels is None else 3))

    def part(start: int, stop: int | None) -> tuple[dict[str, Array], Array | None]:
        return batching.select_samples(signature, inputs, start, stop), None if labels is None else labels[start:stop]

    parts = {GOLDEN_FILE: part(0, golden)}
    if calibration:
        parts[CALIBRATION_FILE] = calibration, None
    elif end > golden:
        parts[CALIBRATION_FILE] = part(golden, end)
    if labels is not None and end < total:
        parts[TEST_FILE] = part(end, None)
    return parts


def _write(
    parts: Mapping[str, tuple[dict[str, Array], Array | None]], loaded: LoadedModel, folder: Path
) -> tuple[float | None, dict[str, Rounding]]:
    """The samples with the model's own outputs.

    Returns the accuracy on the test samples where there are labels of classes, and what float32 costs on the golden
    ones.
    """
    accuracy, rounding = None, {}
    for file, (inputs, labels) in parts.items():
        outputs = loaded.run(inputs) if file != CALIBRATION_FILE else {}
        Samples(inputs, outputs, labels).save(folder / file)
        if file == GOLDEN_FILE:
            rounding = measure_rounding(outputs, loaded.run_float64(inputs))
        if file == TEST_FILE and labels is not None and np.issubdtype(labels.dtype, np.integer):
            first = next(iter(outputs.values()))
            if first.ndim == 2 and first.shape[1] > 1:
                accuracy = TASK_METRICS["accuracy"].compute(first, labels, next(iter(inputs.values())))
    return accuracy, rounding


def _data(request: ImportRequest, parts: Mapping[str, tuple[dict[str, Array], Array | None]]) -> dict[str, Any]:
    counts = {file.removesuffix(".npz"): len(next(iter(inputs.values()))) for file, (inputs, _) in parts.items()}
    names = {"sample": request.sample, "calibration_from": request.calibration}
    return {**counts, **{key: Path(value).name for key, value in names.items() if value}}
