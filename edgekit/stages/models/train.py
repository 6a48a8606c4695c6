"""The train stage: a reference model and a seed in, `build/<model>/<framework>/source/` out."""

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
from edgekit.core.events import Noted
from edgekit.core.numerics.metrics import format_metric
from edgekit.core.records.source import SourceModel
from edgekit.stages.context import FRAMEWORKS, Context, training_environment
from edgekit.stages.models.train_job import TrainRequest, train_model
from edgekit.training._tensorboard import TENSORBOARD

TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class TrainOptions:
    """What the user chose; None leaves model.toml's figure.

    `tensorboard` is a folder for event files, or "" for each model's own in build/.
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
        """Hyperparameters to put in place of model.toml's."""
        names = {field.name for field in fields(TrainingSpec)}
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return {name: value for name, value in values.items() if value is not None}


def parse_frameworks(text: str | None) -> tuple[str, ...]:
    """`keras`, `torch`, or both (also for None). Raises InputError that lists them."""
    if text in (None, "both"):
        return FRAMEWORKS
    if text not in FRAMEWORKS:
        raise unknown_name("framework", str(text), [*FRAMEWORKS, "both"])
    return (str(text),)


def train_one(context: Context, model: str, kind: str, options: TrainOptions) -> SourceModel:
    """Trains one model in one framework; what was there before is replaced when the new one is complete.

    A training that is cut short leaves a checkpoint of its latest epoch, from which `options.resume` goes on; a
    complete one removes it. Raises InputError (bad data, bad model.toml, a checkpoint that does not fit),
    MissingDependency, StepError.
    """
    folder = context.project.model_folder(model)
    checkpoint = context.project.checkpoint_folder(model, kind)
    step = step_name(model, kind)
    data = options.data
    if data is not None and Path(data).exists():
        data = str(Path(data).resolve())  # the worker may stand elsewhere
    if checkpoint.exists() and not options.resume:
        context.emit(Noted(step, "an earlier training was cut short; starting anew (--resume would continue it)"))
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
            timeout_s=max(TIMEOUT_S, (options.time_limit_s or 0) + TIMEOUT_S / 6),
            listener=context.emit,
        )
    shutil.rmtree(checkpoint, ignore_errors=True)
    return source


def _tensorboard(context: Context, model: str, kind: str, chosen: str | None) -> str | None:
    """The folder of one training's event files: its own in build/, or two levels down in the one that was named."""
    if chosen is None:
        return None
    return str(Path(chosen).resolve() / model / kind if chosen else context.project.tensorboard_folder(model, kind))


def _check(kinds: Sequence[str], options: TrainOptions) -> None:
    """Raises InputError or MissingDependency for an option that a framework or this installation cannot grant."""
    if options.tensorboard is not None:
        require((TENSORBOARD,), "--tensorboard")
    for kind in kinds if options.qat else ():
        trainer = TRAINERS.load(kind)
        if trainer.no_qat:
            raise InputError(f"--qat: {trainer.no_qat}")
        require(trainer.qat_requires, "quantization-aware training")


def step_name(model: str, kind: str) -> str:
    """`train simple_cnn/keras`."""
    return f"train {model}/{kind}"


def train(
    context: Context, models: Sequence[str], kinds: Sequence[str], options: TrainOptions
) -> tuple[SourceModel, ...]:
    """Trains each model in each framework; the failed ones are in `context.failures`.

    Raises InputError or MissingDependency, before anything is trained, for options that cannot be granted.
    """
    _check(kinds, options)
    for model in models:
        context.spec(model)  # a bad model.toml is told before anything is trained
    trained = []
    for kind in kinds:
        for model in models:
            work = partial(train_one, context, model, kind, options)
            source = context.attempt(step_name(model, kind), work, summary)
            if source is not None:
                trained.append(source)
    return tuple(trained)


def summary(source: SourceModel) -> str:
    """The result in a few words: `accuracy 97.3 % on 1000 samples`."""
    figure = format_metric(source.metric, source.metric_value)
    return f"{source.metric} {figure} on {source.data.get('test')} unseen samples"
