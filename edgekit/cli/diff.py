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


@click.command("diff", short_help="Tell which layer's output goes wrong between two files.")
@click.argument("models", nargs=-1, required=True, metavar="[REFERENCE] ACTUAL")
@click.option("--samples", type=click.Path(path_type=Path), help="Real inputs (default: an artifact's golden samples).")
@click.option(
    "--sensitivity",
    cls=RenamedOption,
    former=("--blame",),
    is_flag=True,
    help="Put the artifact's layers back into float, one at a time: what does it gain?",
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
    """Compare two models tensor by tensor, and name the first tensor where the error leaps.

    Each is an artifact's folder, a file (.tflite, .onnx, .pt, .keras, .pt2 ...), a source folder or FILE.py:FUNCTION;
    an artifact alone is compared with the source that it was made from. Tensors are matched by name and by what they
    compute, across layouts and fusions; what has no twin is listed. TFLite runs on its reference kernels here, since
    XNNPACK keeps no tensor between; ExecuTorch and the lite interpreter do not show their inner tensors.

    What is found out about an artifact in build/, against its source or its float32 twin on its own golden samples, is
    kept beside it, and reports show it.

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
        raise click.UsageError("name one artifact, or two models")
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
    told = f"kept for reports in {kept}\n" if kept else ""
    session.answer(
        data,
        lambda: (
            _text(found, session.color)
            + told
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
        raise InputError(f"{text} is no artifact: --sensitivity makes one anew from its source, layer by layer")
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
            "<- leaps" if item is found.first else "",
        )
        for item in found.tensors
    ]
    header = ("tensor", "SQNR dB", "cosine", "max err", "range", "its range", "")
    text = table(header, rows, left=1, color=color)
    for side, names in (("the first", found.only_reference), ("the second", found.only_actual)):
        if names:
            text += f"only in {side}: {', '.join(names)}\n"
    if found.first is None:
        return f"{text}the error grows nowhere by more than 10 dB\n"
    return f"{text}the error leaps at {found.first.reference}\n"


_WIDTH = 34
