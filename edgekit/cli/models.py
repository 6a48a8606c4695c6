"""edgekit models"""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli._common import Run, common, complete


@click.group("models", invoke_without_command=True)
@common
def command(run: Run) -> int:
    """List the reference models, or show one.

    \b
    Example:
      edgekit models
      edgekit models show simple_cnn
    """
    from edgekit.config.model import load_model_spec
    from edgekit.reports.console import table

    data, rows = [], []
    for name, folder in run.project.models().items():
        spec = load_model_spec(folder)
        trained = _trained(run, name)
        shape = "x".join(map(str, spec.input.shape))
        data.append({"name": name, "title": spec.title, "task": spec.task, "folder": str(folder), "trained": trained})
        figures = ", ".join(f"{kind} {item['metric_text']}" for kind, item in trained.items()) or "no"
        rows.append((name, spec.title, spec.task, shape, figures))
    header = ("model", "title", "task", "input", "trained")
    run.answer({"models": data}, lambda: table(header, rows, left=5, color=run.color))
    return 0


def _trained(run: Run, name: str) -> dict[str, dict[str, Any]]:
    from edgekit.core.source import load_source
    from edgekit.stages.context import FRAMEWORKS
    from edgekit.stages.train import format_metric

    found = {}
    for kind in FRAMEWORKS:
        if run.project.is_trained(name, kind):
            source = load_source(run.project.source_folder(name, kind))
            text = f"{source.metric} {format_metric(source.metric, source.metric_value)}"
            found[kind] = {"metric": source.metric, "value": source.metric_value, "metric_text": text}
    return found


@command.command("show")
@click.argument("name", shell_complete=complete("model"))
@common
def show(run: Run, name: str) -> int:
    """Show one model: its model.toml and its trained results.

    \b
    Example:
      edgekit models show simple_cnn
    """
    from dataclasses import asdict

    from edgekit.config.model import load_model_spec

    folder = run.project.model_folder(name)
    spec, trained = load_model_spec(folder), _trained(run, name)
    facts = [
        ("title", spec.title),
        ("folder", str(folder)),
        ("task", f"{spec.task}, judged by {spec.metric}"),
        ("input", f"{spec.input.name} {'x'.join(map(str, spec.input.shape))} {spec.input.dtype}"),
        ("output", f"{spec.output.name} {'x'.join(map(str, spec.output.shape))}"),
        ("data", f"{spec.data.default}: {spec.data.description}; {spec.data.licence}"),
        *((f"trained, {kind}", str(item["metric_text"])) for kind, item in trained.items()),
        *(("budget", f"{budget.variant}: {budget.rule} <= {budget.limit:g}") for budget in spec.budget_list("")),
    ]
    data = {"name": name, "folder": str(folder), "spec": asdict(spec), "trained": trained}
    run.answer(data, "".join(f"{key:<16}{value}\n" for key, value in facts))
    return 0
