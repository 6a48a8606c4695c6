"""edgekit train"""

from __future__ import annotations

import click

from edgekit.cli._common import Run, common, complete


@click.command("train", short_help="Train the reference models.")
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete("model"))
@click.option("--framework", metavar="keras|torch|both", help="Which of the twins (default: both).")
@click.option(
    "--data",
    metavar="NAME|FOLDER",
    help="mnist-5k, keras:mnist, keras:fashion_mnist, or a folder of MNIST-style idx files.",
)
@click.option("--epochs", type=click.IntRange(min=0), help="Instead of model.toml's; 0 leaves the weights untrained.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Instead of model.toml's.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Instead of model.toml's.")
@click.option("--seed", type=click.IntRange(min=0), help="Instead of model.toml's.")
@common
def command(
    run: Run,
    models: tuple[str, ...],
    framework: str | None,
    data: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int | None,
) -> int:
    """Train reference models; without a MODEL, all of them.

    \b
    Example:
      edgekit train simple_cnn --framework both
      edgekit train simple_cnn --data ~/fashion-mnist --epochs 3
    """
    from dataclasses import asdict

    from edgekit.stages.train import TrainOptions, parse_frameworks, train

    options = TrainOptions(data, epochs, batch_size, learning_rate, seed)
    kinds = parse_frameworks(framework)
    for name in models:
        run.project.model_folder(name)
    with run.context() as context:
        trained = train(context, models or list(context.project.models()), kinds, options)
    folders = [context.project.source_folder(source.name, source.kind) for source in trained]
    run.answer({"trained": [asdict(source) for source in trained]}, "".join(f"{folder}\n" for folder in folders))
    return context.exit_code
