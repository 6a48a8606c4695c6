"""edgekit train"""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli._common import FiniteFloat, complete
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line


@click.command("train", short_help="Train the reference models.")
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete("model"))
@click.option("--all", "everything", is_flag=True, help="Train all models; the default without a MODEL.")
@click.option("--framework", metavar="keras|torch|both", help="Framework to train in (default: both).")
@click.option(
    "--data",
    metavar="NAME|FOLDER",
    help="Data set of an image model: mnist-5k, keras:mnist, keras:fashion_mnist, keras:cifar10, or a folder of IDX"
    " files.",
)
@click.option(
    "--epochs", type=click.IntRange(min=0), help="Number of epochs; overrides model.toml. 0 keeps the initial weights."
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Batch size; overrides model.toml.")
@click.option("--learning-rate", type=FiniteFloat(min=0, min_open=True), help="Learning rate; overrides model.toml.")
@click.option("--seed", type=click.IntRange(min=0), help="Random seed; overrides model.toml.")
@click.option("--schedule", metavar="constant|cosine|step", help="Learning rate schedule; overrides model.toml.")
@click.option(
    "--early-stopping",
    type=click.IntRange(min=1),
    metavar="EPOCHS",
    help="Stop after this many epochs without improvement of the loss on a held-out 10 % of the training set.",
)
@click.option("--time-limit", metavar="DURATION", help="Stop after this time and keep the weights: 90s, 2m, 1h.")
@click.option("--resume", is_flag=True, help="Continue an interrupted training after its last complete epoch.")
@click.option(
    "--tensorboard",
    metavar="[DIR]",
    is_flag=False,
    flag_value="",
    help="Write TensorBoard event files into DIR (default: build/MODEL/FRAMEWORK/tensorboard).",
)
@click.option("--qat", is_flag=True, help="Quantization-aware training: fine-tune with simulated int8 rounding.")
@common_options
def command(
    session: CommandSession,
    models: tuple[str, ...],
    everything: bool,
    framework: str | None,
    time_limit: str | None,
    **options: Any,
) -> int:
    """Train reference models; without a MODEL, all of them.

    To continue an interrupted training, repeat the command with --resume; the final weights are the same.

    \b
    Example:
      edgekit train simple_cnn --framework both
      edgekit train --all
      edgekit train simple_cnn --data ~/fashion-mnist --epochs 3
      edgekit train simple_cnn --epochs 50 --early-stopping 5 --time-limit 10m --tensorboard
      edgekit train simple_cnn --framework torch --qat
    """
    from dataclasses import asdict

    from edgekit.core.errors import InputError
    from edgekit.stages.models.train import TrainOptions, parse_frameworks, train

    train_options = TrainOptions(time_limit_s=_parse_time_limit(time_limit), **options)
    _check_arguments(session, models, train_options.schedule, train_options.tensorboard)
    kinds = parse_frameworks(framework)
    if everything and models:
        raise InputError(f"--all and {models[0]} contradict each other")
    with session.context() as context:
        trained = train(context, models or list(context.project.models()), kinds, train_options)
    folders = [context.project.source_folder(source.name, source.kind) for source in trained]
    session.print_result(
        {"trained": [asdict(source) for source in trained]}, "".join(line(str(folder)) for folder in folders)
    )
    return context.exit_code


def _parse_time_limit(text: str | None) -> float | None:
    from edgekit.core.errors import InputError
    from edgekit.core.units import parse_seconds

    if text is None:
        return None
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise InputError(f"--time-limit: {error}") from None
    if seconds == 0:
        raise InputError("--time-limit: must be more than 0 s")
    return seconds


def _check_arguments(
    session: CommandSession, models: tuple[str, ...], schedule: str | None, tensorboard: str | None
) -> None:
    from edgekit.config.model import SCHEDULES
    from edgekit.core.errors import InputError, unknown_name

    for name in models:
        session.project.model_folder(name)
    if schedule is not None and schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    if tensorboard in session.project.models():
        # click reads the word after an option with an optional value as its value, here the name of a model.
        raise InputError(
            f"--tensorboard {tensorboard}: this is a model; write --tensorboard after the models, or =./{tensorboard}"
        )
