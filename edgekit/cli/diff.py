"""edgekit diff"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import CommandSession, RenamedOption, common, forced_pairs, pair_option, timeout_option

if TYPE_CHECKING:
    from edgekit.core.numerics.layerwise_diff import LayerwiseDiff
    from edgekit.core.records.tuning import LayerSensitivity
    from edgekit.stages.context import Context


@click.command("diff", short_help="Find the layer where two models diverge.")
@click.argument("models", nargs=-1, required=True, metavar="[REFERENCE] ACTUAL")
@click.option("--samples", type=click.Path(path_type=Path), help="Real inputs (default: an artifact's golden samples).")
@click.option(
    "--sensitivity",
    cls=RenamedOption,
    former=("--blame",),
    is_flag=True,
    help="Measure what the artifact gains when single layers are kept in float.",
)
@pair_option
@timeout_option
@common
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
        found = diff(context, reference, actual, samples, forced_pairs(pairs))
        # Figures of other samples or another pairing are not what reports are about.
        made = None if samples or pairs else layers_of_diff(context, reference, actual, found)
        kept = None if made is None else str(keep(*made))
        sensitivities = _sensitivities(context, actual) if sensitivity else ()
    first = found.first
    data = {**finite(asdict(found)), "first": None if first is None else first.reference, "kept": kept}
    if sensitivity:
        data["sensitivities"] = [asdict(item) for item in sensitivities]
    stored_line = f"kept for reports in {kept}\n" if kept else ""
    session.answer(
        data,
        lambda: (
            _text(found, session.color)
            + stored_line
            + (_sensitivity_text(sensitivities, session.color) if sensitivity else "")
        ),
    )
    return 0


def _sensitivities(context: Context, text: str) -> tuple[LayerSensitivity, ...]:
    from edgekit.core.errors import InputError
    from edgekit.stages.tuning.tune import measure_sensitivity
    from edgekit.stages.validation.compare import artifact_of

    artifact = artifact_of(Path(text))
    if artifact is None:
        raise InputError(f"{text} is not an artifact; --sensitivity needs one, because it converts its source again")
    return measure_sensitivity(context, artifact)


def _sensitivity_text(sensitivities: Sequence[LayerSensitivity], color: bool) -> str:
    from edgekit.reports.console import sensitivity_table

    return "\n" + sensitivity_table(sensitivities, 100.0, color)


def _text(found: LayerwiseDiff, color: bool) -> str:
    from edgekit.reports.console import table

    rows = [
        (
            item.reference if len(item.reference) <= _WIDTH else f"…{item.reference[1 - _WIDTH :]}",
            "exact" if item.sqnr_db is None else f"{item.sqnr_db:.1f}",
            f"{item.cosine:.5f}",
            f"{item.max_abs_error:.2g}",
            f"{item.reference_range[0]:.3g}..{item.reference_range[1]:.3g}",
            f"{item.actual_range[0]:.3g}..{item.actual_range[1]:.3g}",
            "<- diverges" if item is found.first else "",
        )
        for item in found.tensors
    ]
    header = ("tensor", "SQNR dB", "cosine", "max err", "range", "its range", "")
    text = table(header, rows, left=1, color=color)
    for side, names in (("the first", found.only_reference), ("the second", found.only_actual)):
        if names:
            text += f"only in {side}: {', '.join(names)}\n"
    if found.first is None:
        return f"{text}no divergence: the SQNR drops by more than 10 dB at no tensor\n"
    return f"{text}first divergence: {found.first.reference}\n"


_WIDTH = 34
