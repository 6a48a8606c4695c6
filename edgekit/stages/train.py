"""The train stage: a reference model and a seed in, `build/<model>/<framework>/source/` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.config.model import TrainingSpec
from edgekit.core.errors import unknown_name
from edgekit.core.files import staged_folder
from edgekit.core.metrics import TASK_METRICS
from edgekit.core.source import SourceModel
from edgekit.stages.context import FRAMEWORKS, Context, source_environment

TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class TrainOptions:
    """What the user chose; None leaves model.toml's figure."""

    data: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int | None = None

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

    Raises InputError (bad data, bad model.toml), MissingDependency, StepError.
    """
    folder = context.project.model_folder(model)
    step = step_name(model, kind)
    data = options.data
    if data is not None and Path(data).exists():
        data = str(Path(data).resolve())  # the worker may stand elsewhere
    with staged_folder(context.project.source_folder(model, kind)) as staging:
        arguments = {
            "model_folder": str(folder),
            "kind": kind,
            "data": data,
            "overrides": options.overrides(),
            "folder": str(staging),
            "step": step,
        }
        source: SourceModel = context.pool.call(
            "edgekit.stages._jobs:train",
            arguments,
            step=step,
            environment=source_environment(kind),
            timeout_s=TIMEOUT_S,
            listener=context.emit,
        )
    return source


def step_name(model: str, kind: str) -> str:
    """`train simple_cnn/keras`."""
    return f"train {model}/{kind}"


def train(
    context: Context, models: Sequence[str], kinds: Sequence[str], options: TrainOptions
) -> tuple[SourceModel, ...]:
    """Trains each model in each framework; the failed ones are in `context.failures`."""
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


def format_metric(name: str | None, value: float | None) -> str:
    """Shares in percent, others with four digits; a dash where nothing was judged."""
    if name is None or value is None:
        return "-"
    return f"{100 * value:.2f} %" if TASK_METRICS[name].is_share else f"{value:.4f}"
