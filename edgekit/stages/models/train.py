"""The train stage: trains a reference model and writes `build/<model>/<framework>/source/`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.config.model import TrainingSpec
from edgekit.contracts.trainer import TRAINERS
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.events import NoteEvent
from edgekit.core.numerics.metrics import format_metric
from edgekit.core.records.source import SourceModel
from edgekit.stages.context import FRAMEWORKS, Context, training_environment
from edgekit.stages.models.train_job import TrainRequest, train_model
from edgekit.training._tensorboard import TENSORBOARD

# Ends a training that hangs; the reference models train within minutes on two cores.
TIMEOUT_S = 3600.0
# The share of `TIMEOUT_S` that a training with a time limit has beyond it, to finish its epoch and write its samples.
_GRACE_SHARE = 1 / 6


@dataclass(frozen=True)
class TrainOptions:
    """The user's options of a training; None keeps the value of model.toml.

    Attributes:
        data: Name or path of the data set.
        epochs: Number of epochs.
        batch_size: Samples in a batch.
        learning_rate: Initial learning rate.
        seed: Seed of the initial weights and of the order of the samples.
        schedule: Name of the learning-rate schedule.
        early_stopping: Epochs without improvement after which training stops.
        time_limit_s: Time in seconds after which training stops and keeps its result so far.
        resume: Whether to continue from the checkpoint of an interrupted training.
        tensorboard: Folder for event files; "" for a folder in build/ per model.
        qat: Whether to add quantization-aware epochs.
    """

    data: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    schedule: str | None = None
    early_stopping: int | None = None
    time_limit_s: float | None = None
    resume: bool = False
    tensorboard: str | None = None
    qat: bool = False

    def overrides(self) -> dict[str, Any]:
        """Return the hyperparameters that replace those of model.toml."""
        names = {field.name for field in fields(TrainingSpec)}
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return {name: value for name, value in values.items() if value is not None}


def parse_frameworks(text: str | None) -> tuple[str, ...]:
    """Return the frameworks that an option's text stands for.

    Args:
        text: `keras`, `torch` or `both`; None means `both`.

    Raises:
        InputError: It is none of these.
    """
    if text in (None, "both"):
        return FRAMEWORKS
    if text not in FRAMEWORKS:
        raise unknown_name("framework", str(text), [*FRAMEWORKS, "both"])
    return (str(text),)


def train_one(context: Context, model: str, kind: str, options: TrainOptions) -> SourceModel:
    """Train one model in one framework and write its source folder.

    A previous source is replaced only after the training has finished. An interrupted training leaves a checkpoint of
    its latest epoch, from which `options.resume` continues; a finished one removes it.

    Args:
        context: The project and the workers.
        model: Name of the reference model.
        kind: The framework, as a source kind.
        options: The user's options.

    Returns:
        The description of the trained source.

    Raises:
        InputError: The data or model.toml is invalid, or the checkpoint belongs to another training.
        MissingDependency: A package is not installed.
        StepError: The training failed.
    """
    folder = context.project.model_folder(model)
    checkpoint = context.project.checkpoint_folder(model, kind)
    step = step_name(model, kind)
    data = options.data
    if data is not None and Path(data).exists():
        data = str(Path(data).resolve())  # the worker may have another working directory
    if checkpoint.exists() and not options.resume:
        context.emit(NoteEvent(step, "ignoring the checkpoint of an interrupted training; continue it with --resume"))
    with staged_folder(context.project.source_folder(model, kind)) as staging:
        request = TrainRequest(
            model_folder=str(folder),
            kind=kind,
            data=data,
            overrides=options.overrides(),
            folder=str(staging),
            step=step,
            checkpoint=str(checkpoint),
            resume=options.resume,
            tensorboard=_tensorboard(context, model, kind, options.tensorboard),
            time_limit_s=options.time_limit_s,
            qat=options.qat,
        )
        source = context.pool.call(
            train_model,
            request,
            step=step,
            environment=training_environment(kind),
            timeout_s=max(TIMEOUT_S, (options.time_limit_s or 0) + TIMEOUT_S * _GRACE_SHARE),
            listener=context.emit,
        )
    shutil.rmtree(checkpoint, ignore_errors=True)
    return source


def _tensorboard(context: Context, model: str, kind: str, folder: str | None) -> str | None:
    """Return the folder of one training's event files: in build/, or `<model>/<kind>` below the user's folder."""
    if folder is None:
        return None
    return str(Path(folder).resolve() / model / kind if folder else context.project.tensorboard_folder(model, kind))


def _check_options(kinds: Sequence[str], options: TrainOptions) -> None:
    """Raise InputError or MissingDependency for an option that a framework or this installation does not support."""
    if options.tensorboard is not None:
        require((TENSORBOARD,), "--tensorboard")
    for kind in kinds if options.qat else ():
        trainer = TRAINERS.load(kind)
        if trainer.no_qat:
            raise InputError(f"--qat: {trainer.no_qat}")
        require(trainer.qat_requires, "quantization-aware training")


def step_name(model: str, kind: str) -> str:
    """Return the step's name, such as `train simple_cnn/keras`."""
    return f"train {model}/{kind}"


def train(
    context: Context, models: Sequence[str], kinds: Sequence[str], options: TrainOptions
) -> tuple[SourceModel, ...]:
    """Train each model in each framework; the errors of failed trainings are added to `context.failures`.

    Args:
        context: The project and the workers.
        models: Names of reference models.
        kinds: The frameworks, as source kinds.
        options: The user's options.

    Returns:
        The sources that were trained.

    Raises:
        InputError: A framework does not support an option, or a model.toml is invalid. Nothing has been trained.
        MissingDependency: An option needs a package that is not installed. Nothing has been trained.
    """
    _check_options(kinds, options)
    for model in models:
        context.spec(model)  # an invalid model.toml is reported before anything is trained
    trained = []
    pairs = [(model, kind) for kind in kinds for model in models]
    steps = [step_name(model, kind) for model, kind in pairs]
    for index, (model, kind) in enumerate(pairs):
        context.emit_overview(steps, index)
        source = context.attempt(steps[index], partial(train_one, context, model, kind, options), summary)
        if source is not None:
            trained.append(source)
    return tuple(trained)


def summary(source: SourceModel) -> str:
    """Return the result in a few words, such as `accuracy 97.30 % on 1000 unseen samples`."""
    value = format_metric(source.metric, source.metric_value)
    return f"{source.metric} {value} on {source.data.get('test')} unseen samples"
