"""What runs inside workers. Every function takes plain values and paths, and `emit` for events."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.config.model import ModelSpec, TrainingSpec, load_model_spec
from edgekit.contracts.bridge import BRIDGES, Bridge
from edgekit.contracts.checkpoint import Checkpoints
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import SOURCES, LoadedModel, SourceKind
from edgekit.contracts.target import TARGETS, ConversionRequest, ConversionResult, Target
from edgekit.contracts.trainer import TRAINERS, TrainingJob
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.requirements import require, versions
from edgekit.core.environment.user_code import Factory, load_function
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Listener
from edgekit.core.numerics import tensor_layout
from edgekit.core.numerics.metrics import TASK_METRICS, Array
from edgekit.core.numerics.rounding_error import Rounding, measure_rounding
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.records.operator_costs import Operator
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import ModelDescription, Signature, TensorSpec
from edgekit.training.datasets.splits import Splits, digest, hold_out

_LAYOUTS = {("HWC", "last"): "NHWC", ("HWC", "first"): "NCHW", ("TC", "last"): "NTC", ("TC", "first"): "NTC"}


def _signature(spec: ModelSpec, layout: str) -> Signature:
    """The model's signature in a framework's layout, the batch symbolic."""
    shape = spec.input.shape
    name = _LAYOUTS[(spec.input.layout, layout)] if spec.input.layout else None
    if name == "NCHW":
        shape = (shape[-1], *shape[:-1])
    return Signature(
        (TensorSpec(spec.input.name, ("batch", *shape), spec.input.dtype, name),),
        (TensorSpec(spec.output.name, ("batch", *spec.output.shape), "float32"),),
    )


def _in_layout(inputs: Array, signature: Signature) -> Array:
    if signature.inputs[0].layout == "NCHW":
        return np.ascontiguousarray(np.moveaxis(inputs, -1, 1))  # (N, H, W, C) -> (N, C, H, W)
    return inputs


def train(
    model_folder: str,
    kind: str,
    data: str | None,
    overrides: Mapping[str, Any],
    folder: str,
    step: str,
    checkpoint: str,
    resume: bool,
    tensorboard: str | None,
    time_limit_s: float | None,
    qat: bool,
    *,
    emit: Listener,
) -> SourceModel:
    """Trains one framework's twin of a reference model and writes the whole source folder."""
    deadline_s = None if time_limit_s is None else time.monotonic() + time_limit_s
    spec = load_model_spec(Path(model_folder))
    training = spec.training.changed(overrides)
    trainer = TRAINERS.load(kind)
    source_kind = SOURCES.load(kind)
    require(trainer.requires, f"training {kind} models")
    splits: Splits = load_function(Path(model_folder, "data.py"), "load")(data or spec.data.default, spec)
    signature = _signature(spec, source_kind.layout)
    code = Path(model_folder, trainer.code)
    known = {"hyperparameters": _training(training), "code": sha256_file(code), "versions": versions(trainer.requires)}
    (inputs, labels), validation = _lesson_data(splits, spec.task, training, signature)
    lesson = TrainingJob(
        build=load_function(code, "build"),
        spec=training,
        inputs=inputs,
        labels=labels,
        folder=Path(folder),
        step=step,
        validation=validation,
        checkpoints=Checkpoints(Path(checkpoint), {**known, "data": digest(inputs, labels)}),
        resume=resume,
        tensorboard=None if tensorboard is None else Path(tensorboard),
        deadline_s=deadline_s,
        qat=qat,
        emit=emit,
    )
    fit = trainer.fit(lesson)
    weights = Path(folder, fit.file)
    loaded = source_kind.load(weights, signature, load_function(code, "build"))
    value, rounding = _write_samples(spec, loaded, splits, Path(folder))
    parameters = loaded.parameters()
    held_out = {} if validation is None else {"validation": len(validation[0])}
    source = SourceModel(
        name=Path(model_folder).name,
        kind=kind,
        file=fit.file,
        sha256=sha256_file(weights),
        signature=signature,
        task=spec.task,
        metric=spec.metric,
        metric_value=value,
        parameters=sum(array.size for array in parameters.values()),
        code=trainer.code,
        code_sha256=sha256_file(code),
        data={
            "name": splits.name,
            "sha256": splits.sha256,
            "licence": splits.licence,
            **_counts(splits),
            "train": len(inputs),
            **held_out,
        },
        training={**_training(training), **fit.record, "weights_sha256": digest(*parameters.values())},
        history=fit.history,
        rounding=rounding,
        versions=versions(trainer.requires),
    )
    source.save(Path(folder))
    return source


def _lesson_data(
    splits: Splits, task: str, training: TrainingSpec, signature: Signature
) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
    """Inputs and labels to train on, and those of the training set that judge the epochs, if there are any.

    What finds anomalies learns to reconstruct its input.
    """
    inputs = _in_layout(splits.train_inputs, signature)
    labels = inputs if task == "anomaly" else splits.train_labels
    if not training.validation_share:
        return (inputs, labels), None
    kept, held = hold_out(splits, training.validation_share, stratify=training.loss == "cross-entropy")
    return (inputs[kept], labels[kept]), (inputs[held], labels[held])


def _training(spec: TrainingSpec) -> dict[str, Any]:
    return {key: value for key, value in asdict(spec).items() if value is not None}


def _counts(splits: Splits) -> dict[str, int]:
    return {
        "train": len(splits.train_inputs),
        "calibration": len(splits.calibration_inputs),
        "golden": len(splits.golden_inputs),
        "test": len(splits.test_inputs),
    }


def _write_samples(
    spec: ModelSpec, loaded: LoadedModel, splits: Splits, folder: Path
) -> tuple[float, dict[str, Rounding]]:
    """Calibration, golden and test samples with the source's own outputs.

    Returns the task metric on the test set, and what float32 costs on the golden samples.
    """
    name = loaded.signature.inputs[0].name
    parts = {
        CALIBRATION_FILE: (splits.calibration_inputs, splits.calibration_labels),
        GOLDEN_FILE: (splits.golden_inputs, splits.golden_labels),
        TEST_FILE: (splits.test_inputs, splits.test_labels),
    }
    value, rounding = float("nan"), {}
    for file, (array, labels) in parts.items():
        inputs = {name: _in_layout(array, loaded.signature)}
        outputs = loaded.run(inputs) if file != CALIBRATION_FILE else {}
        Samples(inputs, outputs, labels).save(folder / file)
        if file == GOLDEN_FILE:
            rounding = measure_rounding(outputs, loaded.run_float64(inputs))
        if file == TEST_FILE:
            value = TASK_METRICS[spec.metric].compute(outputs[spec.output.name], labels, inputs[name])
    if not np.isfinite(value):
        raise StepFailed(f"the trained model's {spec.metric} is {value}: the training diverged")
    return value, rounding


_loaded: dict[tuple[str, str, str | None, Signature], LoadedModel] = {}


@dataclass(frozen=True)
class ConvertRequest:
    """A conversion. Folders are absolute; `base` is what the source's code is relative to.

    `sizes` fixes symbolic dimensions by name, `layout` puts images into another one, `options` are the target's own,
    `recipe` says which layers are made otherwise.
    """

    source_folder: str
    base: str
    target: str
    precision: str
    folder: str
    bridge: str | None = None
    calibration: Mapping[str, Array] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    layout: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None


@dataclass(frozen=True)
class ConvertAnswer:
    """What a conversion made, and the versions of its tools.

    Where a layout was asked for: the order of dimensions of each tensor that was relaid, and the transposes in the file
    and in one of the source's own layout.
    """

    converted: ConversionResult
    versions: Mapping[str, str]
    orders: Mapping[str, Permutation] = field(default_factory=dict)
    transposes: int = 0
    transposes_unmoved: int = 0


def _source(request: ConvertRequest) -> tuple[LoadedModel, SourceModel]:
    """The source, over the bridge if there is one; loaded once a worker: a run exports many variants of it."""
    folder, bridge = Path(request.source_folder), request.bridge
    source = load_source(folder)
    signature = source.signature.sized(request.sizes)
    if bridge is not None:  # a bridge keeps the batch, and carries other dimensions as the samples have them
        signature = signature.sized(source.sizes)
    key = (str(folder), source.sha256, bridge, signature)
    if key not in _loaded:
        plugin: SourceKind | Bridge = BRIDGES.load(bridge) if bridge else SOURCES.load(source.kind)
        require(plugin.requires, f"loading {source.kind} models" + (f" by the bridge {bridge}" if bridge else ""))
        _loaded.clear()
        build = None if source.code is None else partial(Factory.parse(source.code).call, Path(request.base))
        loaded = plugin.load(source.weights_path(folder), signature, build)
        _loaded[key] = loaded.at(loaded.signature, source.sizes)  # a bridge may have had to fix the batch
    return _loaded[key], source


def prepare_conversion(request: ConvertRequest) -> tuple[Target, LoadedModel, ConversionRequest]:
    """The target, the source as it takes it, and what it is asked for."""
    target = TARGETS.load(request.target)
    loaded, source = _source(request)
    signature = loaded.signature
    if not target.symbolic:
        signature = signature.sized({**source.sizes, signature.batch or "": 1})
    folder = Path(request.folder)
    job = ConversionRequest(request.precision, folder, request.calibration, request.options, request.recipe)
    return target, loaded.at(signature, source.sizes), job


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Puts off the search for garbage: converters make graphs of a million objects, and it goes through all of them
    over and over, a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def convert(request: ConvertRequest, *, emit: Listener) -> ConvertAnswer:
    """Converts the source into the folder."""
    with _without_garbage_collection():
        return _convert(request)


def _convert(request: ConvertRequest) -> ConvertAnswer:
    target, loaded, job = prepare_conversion(request)
    signature = loaded.signature
    used = versions(target.requires[loaded.kind])
    if request.layout is None:
        return ConvertAnswer(target.convert(loaded, job), used)
    moved, orders = tensor_layout.relayout_signature(signature, request.layout)
    before = _transposes_unmoved(target, loaded, job)
    calibration = job.calibration and tensor_layout.transpose_arrays(job.calibration, orders)
    converted = target.convert(loaded.with_layout(orders, moved), replace(job, calibration=calibration))
    return ConvertAnswer(converted, used, orders, _transposes(target, converted, job.folder), before)


def _transposes(target: Target, converted: ConversionResult, folder: Path) -> int:
    """How many operators of the file only move data."""
    if converted.transposes is not None:
        return converted.transposes
    path = folder / converted.file
    return sum(op.count for op in target.describe(path).ops if op.name in target.transposes)


def _transposes_unmoved(target: Target, loaded: LoadedModel, job: ConversionRequest) -> int:
    """How many there would be in the source's own layout."""
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        converted = target.convert(loaded, replace(job, folder=Path(folder)))
        return _transposes(target, converted, Path(folder))


def infer(
    runtime: str,
    path: str,
    signature: Signature,
    inputs: Mapping[str, Array],
    threads: int,
    batch: int = 1,
    *,
    emit: Listener,
) -> dict[str, Array]:
    """Real values in, real values out, in the artifact's runtime; a symbolic batch in calls of so many samples."""
    plugin = RUNTIMES.load(runtime)
    return plugin.open(Path(path), threads=threads, signature=signature).infer(inputs, batch)


def describe(target: str, path: str, *, emit: Listener) -> ModelDescription:
    """What is in the file."""
    plugin = TARGETS.load(target)
    require(plugin.reads_with, f"reading {plugin.suffixes[0]} files")
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    return plugin.describe(Path(path))


def operators(target: str, path: str, *, emit: Listener) -> tuple[Operator, ...]:
    """After which operators the file can be cut off."""
    plugin = TARGETS.load(target)
    require(plugin.reads_with, f"reading {plugin.suffixes[0]} files")
    return plugin.operators(Path(path))


def cut(target: str, path: str, after: tuple[int, ...], folder: str, *, emit: Listener) -> tuple[Path, ...]:
    """Files that end after these operators."""
    plugin = TARGETS.load(target)
    return plugin.truncate_after(Path(path), after, Path(folder))


def lives(target: str, path: str, *, emit: Listener) -> tuple[TensorLifetime, ...]:
    """How long each tensor in the file lives."""
    plugin = TARGETS.load(target)
    require(plugin.reads_with, f"reading {plugin.suffixes[0]} files")
    return plugin.tensor_lifetimes(Path(path))
