"""Training of a reference model; runs inside a worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.config.model import ModelSpec, TrainingSpec, load_model_spec
from edgekit.contracts.checkpoint import Checkpoints
from edgekit.contracts.source import SOURCES, LoadedModel
from edgekit.contracts.trainer import TRAINERS, TrainingJob
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.requirements import require, versions
from edgekit.core.environment.user_code import load_function
from edgekit.core.errors import StepFailed
from edgekit.core.events import Listener
from edgekit.core.numerics.metrics import TASK_METRICS, Array
from edgekit.core.numerics.rounding_error import Rounding, measure_rounding
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.training.datasets.splits import Splits, digest, hold_out
from edgekit.workers.job import worker_job

# (Layout in model.toml, position of the channels in the framework) -> layout of the framework's input.
_LAYOUTS = {("HWC", "last"): "NHWC", ("HWC", "first"): "NCHW", ("TC", "last"): "NTC", ("TC", "first"): "NTC"}


def _signature(spec: ModelSpec, layout: str) -> Signature:
    """Return the model's signature in a framework's layout, with a symbolic batch."""
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


@dataclass(frozen=True)
class TrainRequest:
    """A training of one reference model in one framework. Paths are absolute.

    Attributes:
        model_folder: The folder of the reference model.
        kind: The framework, as a source kind.
        data: The data set's name or path; None for the model's default.
        overrides: Hyperparameters that replace those of model.toml.
        folder: The source folder to write.
        step: The step's name, for events.
        checkpoint: The folder of the checkpoint.
        resume: Whether to continue from the checkpoint.
        tensorboard: The folder for event files, or None.
        time_limit_s: The time in seconds after which training stops with what it has, or None.
        qat: Whether to train with quantization-aware epochs at the end.
    """

    model_folder: str
    kind: str
    data: str | None
    overrides: Mapping[str, Any]
    folder: str
    step: str
    checkpoint: str
    resume: bool = False
    tensorboard: str | None = None
    time_limit_s: float | None = None
    qat: bool = False


@worker_job
def train_model(request: TrainRequest, emit: Listener) -> SourceModel:
    """Train a reference model in one framework and write its complete source folder.

    Args:
        request: The training.
        emit: Receives the progress.

    Returns:
        The description of the source.

    Raises:
        InputError: The data, the model's code or the checkpoint is invalid.
        MissingDependency: The framework is not installed.
        StepFailed: The training diverged.
    """
    deadline_s = None if request.time_limit_s is None else time.monotonic() + request.time_limit_s
    spec = load_model_spec(Path(request.model_folder))
    training = spec.training.changed(request.overrides)
    trainer = TRAINERS.load(request.kind)
    source_kind = SOURCES.load(request.kind)
    require(trainer.requires, f"training {request.kind} models")
    splits: Splits = load_function(Path(request.model_folder, "data.py"), "load")(
        request.data or spec.data.default, spec
    )
    signature = _signature(spec, source_kind.layout)
    code = Path(request.model_folder, trainer.code)
    fingerprint = {
        "hyperparameters": _hyperparameters(training),
        "code": sha256_file(code),
        "versions": versions(trainer.requires),
    }
    (inputs, labels), validation = _training_data(splits, spec.task, training, signature)
    job = TrainingJob(
        build=load_function(code, "build"),
        spec=training,
        inputs=inputs,
        labels=labels,
        folder=Path(request.folder),
        step=request.step,
        validation=validation,
        checkpoints=Checkpoints(Path(request.checkpoint), {**fingerprint, "data": digest(inputs, labels)}),
        resume=request.resume,
        tensorboard=None if request.tensorboard is None else Path(request.tensorboard),
        deadline_s=deadline_s,
        qat=request.qat,
        emit=emit,
    )
    fit = trainer.fit(job)
    weights = Path(request.folder, fit.file)
    loaded = source_kind.load(weights, signature, load_function(code, "build"))
    value, rounding = _write_samples(spec, loaded, splits, Path(request.folder))
    parameters = loaded.parameters()
    held_out = {} if validation is None else {"validation": len(validation[0])}
    source = SourceModel(
        name=Path(request.model_folder).name,
        kind=request.kind,
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
            **_split_sizes(splits),
            "train": len(inputs),
            **held_out,
        },
        training={**_hyperparameters(training), **fit.record, "weights_sha256": digest(*parameters.values())},
        history=fit.history,
        rounding=rounding,
        versions=versions(trainer.requires),
    )
    source.save(Path(request.folder))
    return source


def _training_data(
    splits: Splits, task: str, training: TrainingSpec, signature: Signature
) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
    """Return the inputs and labels to train on, and those held out for validation, or None.

    An anomaly detector is trained to reconstruct its input: its labels are its inputs.
    """
    inputs = _in_layout(splits.train_inputs, signature)
    labels = inputs if task == "anomaly" else splits.train_labels
    if not training.validation_share:
        return (inputs, labels), None
    kept, held_out = hold_out(splits, training.validation_share, stratify=training.loss == "cross-entropy")
    return (inputs[kept], labels[kept]), (inputs[held_out], labels[held_out])


def _hyperparameters(spec: TrainingSpec) -> dict[str, Any]:
    return {key: value for key, value in asdict(spec).items() if value is not None}


def _split_sizes(splits: Splits) -> dict[str, int]:
    return {
        "train": len(splits.train_inputs),
        "calibration": len(splits.calibration_inputs),
        "golden": len(splits.golden_inputs),
        "test": len(splits.test_inputs),
    }


def _write_samples(
    spec: ModelSpec, loaded: LoadedModel, splits: Splits, folder: Path
) -> tuple[float, dict[str, Rounding]]:
    """Write calibration, golden and test samples, the latter two with the source's own outputs.

    Returns:
        The task metric on the test set, and the rounding error of float32 on the golden samples.
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
        raise StepFailed(f"the training diverged: {spec.metric} is {value} on the test set; try a lower learning rate")
    return value, rounding
