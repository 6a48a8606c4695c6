"""edgekit diff"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import AliasedOption, pair_option, parse_pairs, timeout_option
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.core.numerics.layerwise_diff import LayerwiseDiff
    from edgekit.core.records.tuning import LayerSensitivity
    from edgekit.stages.context import Context

# Longer tensor names are shortened at the front, so that a row fits into 100 columns.
_NAME_WIDTH = 34


@click.command("diff", short_help="Find the layer where two models diverge.")
@click.argument("models", nargs=-1, required=True, metavar="[REFERENCE] ACTUAL")
@click.option("--samples", type=click.Path(path_type=Path), help="Real inputs (default: an artifact's golden samples).")
@click.option(
    "--sensitivity",
    cls=AliasedOption,
    aliases=("--blame",),
    is_flag=True,
    help="Measure what the artifact gains when single layers are kept in float.",
)
@pair_option
@timeout_option
@common_options
def command(
    session: CommandSession,
    models: tuple[str, ...],
    samples: Path | None,
    sensitivity: bool,
    pairs: tuple[str, ...],
    timeout: float,
) -> int:
    """Compare two models tensor by tensor and report the first divergence.

    A model is an artifact folder, a file (.tflite, .onnx, .pt, .keras, .pt2 ...), a source folder or FILE.py:FUNCTION;
    a single artifact is compared with its source. Tensors are matched by name and by what they compute, across layouts
    and fusions; tensors without a counterpart are listed. TFLite models run on the reference kernels, because XNNPACK
    does not keep intermediate tensors. ExecuTorch and the lite interpreter do not expose intermediate tensors.

    The result for an artifact in build/, compared with its source or its float32 counterpart on its own golden samples,
    is stored in its folder and included in reports.

    \b
    Example:
      edgekit diff build/net/keras/tflite-int8
      edgekit diff build/net/keras/tflite-float32 build/net/keras/tflite-int8
      edgekit diff build/net/keras/tflite-int8 --sensitivity
      edgekit diff old.onnx new.onnx --samples inputs.npz
    """
    from dataclasses import asdict

    from edgekit.core.records.layer_errors import finite
    from edgekit.stages.validation.diff import diff, keep, layers_of_diff

    if len(models) > 2:
        raise click.UsageError("expected one artifact or two models")
    with session.context(timeout) as context:
        reference, actual = models if len(models) == 2 else (None, models[0])
        difference = diff(context, reference, actual, samples, parse_pairs(pairs))
        # Reports show results for golden samples and automatic pairing only.
        layers = None if samples or pairs else layers_of_diff(context, reference, actual, difference)
        stored_path = None if layers is None else str(keep(*layers))
        sensitivities = _measure_sensitivities(context, actual) if sensitivity else ()
    first = difference.first
    data = {**finite(asdict(difference)), "first": None if first is None else first.reference, "kept": stored_path}
    if sensitivity:
        data["sensitivities"] = [layer.to_dict() for layer in sensitivities]
    stored_line = line(f"kept for reports in {stored_path}") if stored_path else ""
    session.print_result(
        data,
        lambda: (
            _render(difference, session.color)
            + stored_line
            + (_render_sensitivities(sensitivities, session.color) if sensitivity else "")
        ),
    )
    return 0


def _measure_sensitivities(context: Context, path: str) -> tuple[LayerSensitivity, ...]:
    from edgekit.core.errors import InputError
    from edgekit.stages.tuning.tune import measure_sensitivity
    from edgekit.stages.validation.compare import artifact_of

    artifact = artifact_of(Path(path))
    if artifact is None:
        raise InputError(f"{path} is not an artifact; --sensitivity needs one, because it converts its source again")
    return measure_sensitivity(context, artifact)


def _render_sensitivities(sensitivities: Sequence[LayerSensitivity], color: bool) -> str:
    from edgekit.reports.console import sensitivity_table

    return "\n" + sensitivity_table(sensitivities, 100.0, color)


def _render(difference: LayerwiseDiff, color: bool) -> str:
    from edgekit.reports.console import table

    rows = [
        (
            tensor.reference if len(tensor.reference) <= _NAME_WIDTH else f"…{tensor.reference[1 - _NAME_WIDTH :]}",
            "exact" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f}",
            f"{tensor.cosine:.5f}",
            f"{tensor.max_abs_error:.2g}",
            f"{tensor.reference_range[0]:.3g}..{tensor.reference_range[1]:.3g}",
            f"{tensor.actual_range[0]:.3g}..{tensor.actual_range[1]:.3g}",
            "<- diverges" if tensor is difference.first else "",
        )
        for tensor in difference.tensors
    ]
    header = ("tensor", "SQNR dB", "cosine", "max err", "range", "its range", "")
    text = table(header, rows, left=1, color=color)
    for side, names in (("the first", difference.only_reference), ("the second", difference.only_actual)):
        if names:
            text += line(f"only in {side}: {', '.join(names)}")
    if difference.first is None:
        return f"{text}no divergence: no tensor's SQNR drops by more than 10 dB\n"
    return text + line(f"first divergence: {difference.first.reference}")
