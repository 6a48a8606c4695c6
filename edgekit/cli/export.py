"""edgekit export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import (
    ArtifactFilter,
    artifact_data,
    failures,
    selection_options,
    timeout_option,
    user_model,
    user_model_options,
)
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line
from edgekit.core.values.deployment_presets import PRESETS
from edgekit.core.values.quantization_form import FORM_OPTIONS, TENSOR_TYPES, QuantizationForm, parse_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgekit.stages.conversion.export_plans import ExportPlan


def form_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the form of quantized files."""
    for option in reversed(
        (
            click.option(
                "--inference-input-type",
                type=click.Choice(TENSOR_TYPES),
                help="Type of the inputs of quantized files (default: the target's own).",
            ),
            click.option(
                "--inference-output-type",
                type=click.Choice(TENSOR_TYPES),
                help="Type of the outputs of quantized files (default: the target's own).",
            ),
            click.option(
                "--per-tensor", is_flag=True, help="Quantize weights with one scale per tensor instead of per channel."
            ),
            click.option(
                "--symmetric-activations", is_flag=True, help="Quantize activations symmetrically, without zero points."
            ),
            click.option(
                "--range",
                "ranges",
                multiple=True,
                metavar="NAME=LOW..HIGH",
                help="Range of a tensor, instead of what calibration samples show; may be repeated.",
            ),
            click.option(
                "--for",
                "preset",
                type=click.Choice(list(PRESETS)),
                help="Follow the rules of what the file is for, and warn of what would not run there.",
            ),
        )
    ):
        function = option(function)
    return function


def quantization_form(options: dict[str, Any]) -> QuantizationForm:
    """Collect the values of `form_options`.

    Args:
        options: Values of the command's options by parameter name.

    Raises:
        InputError: A range is malformed, reversed, not finite, or without 0.
    """
    return QuantizationForm(
        **{**{name: options[name] for name in FORM_OPTIONS}, "ranges": parse_ranges(options["ranges"])}
    )


@click.command("export", short_help="Convert models to edge formats.")
@selection_options
@user_model_options
@click.option(
    "--layout", type=click.Choice(["NCHW", "NHWC"]), help="Layout of image inputs and outputs in the artifact."
)
@click.option("--opset", type=int, help="ONNX operator set version.")
@click.option("--ir-version", type=int, help="ONNX file format version.")
@click.option(
    "--calibration-samples",
    type=click.IntRange(min=1),
    help="Number of calibration samples for int8 and int16x8 (default: 200, or all if there are fewer).",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="Convert with this recipe file, written by `edgekit tune` or by hand.",
)
@click.option(
    "--no-repair", is_flag=True, help="Quantize in each target's default way, without a search for a more accurate one."
)
@form_options
@click.option("--route", metavar="KIND,...,TARGET", help="Use only this conversion route, such as keras,torch,tflite.")
@click.option("--sbom", is_flag=True, help="Also write a software bill of materials (CycloneDX) for each artifact.")
@click.option(
    "--emit",
    type=click.Choice(["c", "web"]),
    help="Also write TFLite artifacts as C files for microcontrollers (c), or TFLite and ONNX artifacts as folders for"
    " web pages (web).",
)
@click.option("--explain", is_flag=True, help="Print the conversion routes and convert nothing.")
@timeout_option
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
    route: str | None,
    explain: bool,
    timeout: float,
    **options: Any,
) -> int:
    """Convert models to edge formats; without a MODEL, all reference models. Untrained models are trained first.

    A MODEL is the name of a reference model, or a model of your own: a .keras, .h5, .onnx, .pt2, .tflite or TorchScript
    file, a folder of a SavedModel, of transformers or of MLflow, or the code that builds it, as FILE.py:FUNCTION or
    MODULE:FUNCTION. After the first export, other commands know it by its name. Code is executed only if you name it; a
    model file is only read.

    If a conversion route crashes or does not support the model, the next route is tried, and the manifest records it.

    Without --target, models are converted to all targets; without a precision, to all precisions of a target.

    \b
    Example:
      edgekit export --target tflite
      edgekit export simple_cnn --framework torch --target onnx --precision int8
      edgekit export ds_cnn --target tflite:int8 --emit c
      edgekit export simple_cnn --target onnx:int8 --emit web
      edgekit export detector.onnx --target tflite:int8 --calibration photos/
      edgekit export detector.onnx --target tflite:int8 --inference-input-type uint8 --range image=0..1
      edgekit export ds_cnn --target tflite:int8 --for ethos-u
      edgekit export simple_cnn --recipe build/simple_cnn/keras/tflite-int8-tuned/recipe.json
      edgekit export net.py:build --weights net.safetensors --input image:1x3x96x96 --target executorch
    """
    from edgekit.stages.benchmark import micro
    from edgekit.stages.conversion import emit_web
    from edgekit.stages.conversion.export import export
    from edgekit.stages.conversion.export_request import export_request, plan_exports
    from edgekit.stages.conversion.sbom import write_sbom

    request = export_request(
        artifact_filter.names,
        framework=artifact_filter.framework,
        targets=artifact_filter.targets,
        precision=artifact_filter.precision,
        model_options=user_model(options),
        calibration_samples=options["calibration_samples"],
        layout=options["layout"],
        options={key: options[key] for key in ("opset", "ir_version") if options[key] is not None},
        recipe=options["recipe"],
        repair=not options["no_repair"],
        form=quantization_form(options),
        route=route,
    )
    with session.context(timeout) as context:
        plans = plan_exports(context, request)
        emitter = {"c": micro, "web": emit_web}.get(options["emit"] or "")
        if emitter is not None:
            emitter.check_targets(plan.variant.target for plan in plans)
        if explain:
            return _print_routes(session, plans)
        artifacts = export(context, plans, request.settings)
        sbom_paths = [write_sbom(artifact) for artifact in artifacts] if options["sbom"] else []
        emitted = emitter.emit_beside(context, artifacts) if emitter is not None and artifacts else ()
        code = context.exit_code
    session.print_result(
        {
            "artifacts": [artifact_data(artifact) for artifact in artifacts],
            "failures": failures(context),
            **({"sboms": [str(path) for path in sbom_paths]} if options["sbom"] else {}),
            **({options["emit"]: [str(path) for path in emitted]} if options["emit"] else {}),
        },
        "".join(line(str(folder)) for folder in (*(artifact.folder for artifact in artifacts), *emitted)),
    )
    return code


def _print_routes(session: CommandSession, plans: Sequence[ExportPlan]) -> int:
    from edgekit.reports.console import table

    data = [
        {
            "model": plan.model,
            "kind": plan.kind,
            "variant": str(plan.variant),
            "routes": [list(route.steps) for route in plan.routes],
        }
        for plan in plans
    ]
    rows = [(f"{plan.model}/{plan.kind}", str(plan.variant), "; else ".join(map(str, plan.routes))) for plan in plans]
    session.print_result(
        {"plans": data}, lambda: table(("source", "variant", "route"), rows, left=3, color=session.color)
    )
    return 0
