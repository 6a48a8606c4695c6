"""edgekit export"""

from __future__ import annotations

import click

from edgekit.cli._common import Choice, Run, artifact_data, common, failures, selection_options, timeout_option


@click.command("export", short_help="Convert models to edge formats.")
@selection_options
@click.option(
    "--calibration-samples",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Real samples that int8 and int16x8 take their ranges from.",
)
@timeout_option
@common
def command(
    run: Run,
    choice: Choice,
    calibration_samples: int,
    timeout: float,
) -> int:
    """Convert models; without a MODEL, every reference model. What is not trained is trained first.

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
        made = export.export(context, plans, calibration_samples)
    run.answer(
        {"artifacts": [artifact_data(item) for item in made], "failures": failures(context)},
        "".join(f"{item.folder}\n" for item in made),
    )
    return context.exit_code
