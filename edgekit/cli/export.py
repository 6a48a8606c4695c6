"""edgekit export"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgekit.cli._common import Choice, Run, artifact_data, common, failures, selection_options, timeout_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.stages.export import ExportPlan


@click.command("export", short_help="Convert models to edge formats.")
@selection_options
@click.option(
    "--calibration-samples",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Real samples that int8 and int16x8 take their ranges from.",
)
@click.option("--route", metavar="KIND,...,TARGET", help="Take this route and no other, such as keras,torch,tflite.")
@click.option("--explain", is_flag=True, help="Print the routes without converting.")
@timeout_option
@common
def command(
    run: Run,
    choice: Choice,
    calibration_samples: int,
    route: str | None,
    explain: bool,
    timeout: float,
) -> int:
    """Convert models; without a MODEL, every reference model. What is not trained is trained first.

    When a route crashes or refuses, the next one is taken, and the manifest says so.

    What is not chosen is not narrowed down: no --target is every target, no precision every precision it has.

    \b
    Example:
      edgekit export --target tflite
      edgekit export simple_cnn --framework torch --target onnx --precision int8
      edgekit export simple_cnn --target tflite:int8 --target onnx --target lite-interpreter
    """
    from edgekit.stages import export, routes
    from edgekit.stages.train import parse_frameworks

    kinds = parse_frameworks(choice.framework)
    selection = routes.parse_selection(choice.targets, choice.precision)
    names = choice.names or tuple(run.project.models())
    for name in names:
        run.project.model_folder(name)
    with run.context(timeout) as context:
        named = {"kinds_named": choice.framework not in (None, "both"), "targets_named": bool(choice.targets)}
        plans = export.plan(context, names, kinds, selection, **named)
        if route is not None:
            plans = export.pin(plans, routes.parse_route(route))
        if explain:
            return _explain(run, plans)
        made = export.export(context, plans, calibration_samples)
    run.answer(
        {"artifacts": [artifact_data(item) for item in made], "failures": failures(context)},
        "".join(f"{item.folder}\n" for item in made),
    )
    return context.exit_code


def _explain(run: Run, plans: Sequence[ExportPlan]) -> int:
    from edgekit.reports.console import table

    data = [
        {
            "model": item.model,
            "kind": item.kind,
            "variant": str(item.variant),
            "routes": [list(route.steps) for route in item.routes],
        }
        for item in plans
    ]
    rows = [(f"{item.model}/{item.kind}", str(item.variant), "; else ".join(map(str, item.routes))) for item in plans]
    run.answer({"plans": data}, lambda: table(("source", "variant", "route"), rows, left=3, color=run.color))
    return 0
