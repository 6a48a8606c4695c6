"""edgekit models"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import complete
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.config.card import Card


@click.group("models", invoke_without_command=True)
@common_options
def command(session: CommandSession) -> int:
    """List the reference models.

    \b
    Example:
      edgekit models
      edgekit models show simple_cnn
      edgekit models card simple_cnn --output MODEL_CARD.md
    """
    from edgekit.config.model import load_model_spec
    from edgekit.reports.console import table

    data, rows = [], []
    for name, folder in session.project.models().items():
        spec = load_model_spec(folder)
        trained = _training_results(session, name)
        shape = "x".join(map(str, spec.input.shape))
        data.append({"name": name, "title": spec.title, "task": spec.task, "folder": str(folder), "trained": trained})
        figures = ", ".join(f"{kind} {result['metric_text']}" for kind, result in trained.items()) or "no"
        rows.append((name, spec.title, spec.task, shape, figures))
    header = ("model", "title", "task", "input", "trained")
    session.print_result({"models": data}, lambda: table(header, rows, left=5, color=session.color))
    return 0


def _training_results(session: CommandSession, name: str) -> dict[str, dict[str, object]]:
    from edgekit.core.numerics.metrics import format_metric
    from edgekit.core.records.source import load_source
    from edgekit.stages.context import FRAMEWORKS

    results: dict[str, dict[str, object]] = {}
    for kind in FRAMEWORKS:
        if session.project.is_trained(name, kind):
            source = load_source(session.project.source_folder(name, kind))
            text = f"{source.metric} {format_metric(source.metric, source.metric_value)}"
            results[kind] = {"metric": source.metric, "value": source.metric_value, "metric_text": text}
    return results


@command.command("show", short_help="Show a reference model.")
@click.argument("name", shell_complete=complete("model"))
@common_options
def show(session: CommandSession, name: str) -> int:
    """Show the settings of a model and the results of its training.

    \b
    Example:
      edgekit models show simple_cnn
    """
    from edgekit.reports._shared.model_card import console

    card = _load_card(session, name)
    session.print_result(card.to_dict(), lambda: console(card))
    return 0


@command.command("card", short_help="Print the model card as Markdown.")
@click.argument("name", shell_complete=complete("model"))
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the card to this file instead of stdout."
)
@common_options
def card_command(session: CommandSession, name: str, output: Path | None) -> int:
    """Print the model card: purpose, training data, training settings and results in both frameworks.

    \b
    Example:
      edgekit models card simple_cnn
      edgekit models card simple_cnn --output MODEL_CARD.md
    """
    from edgekit.core.environment.atomic_files import to_json, write_output
    from edgekit.reports._shared.model_card import markdown

    card = _load_card(session, name)
    if output is None:
        session.print_result(card.to_dict(), lambda: markdown(card))
    else:
        write_output(output, to_json(card.to_dict()) if session.as_json else markdown(card))
        session.print_result({"card": str(output)}, line(str(output)))
    return 0


def _load_card(session: CommandSession, name: str) -> Card:
    from edgekit.stages.gates.model_card import card

    with session.context() as context:
        return card(context, name)
