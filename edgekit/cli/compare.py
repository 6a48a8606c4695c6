"""edgekit compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import CommandSession, common, forced_pairs, pair_option, timeout_option

if TYPE_CHECKING:
    from edgekit.stages.validation.compare import Equivalence


@click.command("compare", short_help="Tell whether any two model files compute the same.")
@click.argument("first")
@click.argument("second")
@click.option(
    "--samples", type=click.Path(path_type=Path), required=True, help="Real inputs by name: npz, or npy for one input."
)
@click.option("--labels", type=click.Path(path_type=Path), help="Classes of the samples: accuracy of both, agreement.")
@pair_option
@click.option("--precision", metavar="NAME", help="Whose tolerances to judge by (default: the coarser file's).")
@timeout_option
@common
def command(
    session: CommandSession,
    first: str,
    second: str,
    samples: Path,
    labels: Path | None,
    pairs: tuple[str, ...],
    precision: str | None,
    timeout: float,
) -> int:
    """Run two models on the same samples and judge whether they compute the same; FIRST is the reference.

    Each is a file of any format (.tflite, .onnx, .keras, .h5, .pt2, .pte, .ptl, TorchScript), a SavedModel folder, an
    artifact's folder, or code (FILE.py:FUNCTION). Tensors are paired by name, else by shape and order; layouts are
    reconciled, and quantized inputs and outputs go through scale and zero point. The pairing is printed: correct it
    with --pair.

    Exit code 0 when they are equal, 1 when they are not, or when the outputs are no evidence (all samples alike).

    \b
    Example:
      edgekit compare model.onnx model.tflite --samples inputs.npz
      edgekit compare trained.h5 published_int8.tflite --samples photos.npz --labels classes.npy
    """
    from dataclasses import asdict

    from edgekit.stages.validation.compare import EQUAL, compare

    forced = forced_pairs(pairs)
    with session.context(timeout) as context:
        found = compare(context, (first, second), samples, labels=labels, forced=forced, precision=precision)
    session.answer(asdict(found), lambda: _text(found, session))
    return 0 if found.verdict == EQUAL else 1


def _text(found: Equivalence, session: CommandSession) -> str:
    from edgekit.core.numerics.output_comparison import format_figure
    from edgekit.reports.console import table

    sides = [("input", item) for item in found.inputs] + [("output", item) for item in found.outputs]
    rows = [(side, str(item.first), str(item.second), item.how) for side, item in sides]
    text = f"A  {found.first}\nB  {found.second}\n\n"
    text += table(("", "A", "B", "paired by"), rows, left=4, color=session.color)
    figures = [
        (
            item.output,
            figure.name,
            format_figure(figure.value),
            figure.limit_text,
            "passed" if figure.passed else "FAILED",
        )
        for item in found.comparisons
        for figure in item.figures
        if session.verbosity > 0 or figure.limit is not None
    ]
    figures += [(item.output, item.problem, "", "", "FAILED") for item in found.comparisons if item.problem]
    text += "\n" + table(("output", "figure", "value", f"tolerance ({found.precision})", "verdict"), figures, left=2)
    if found.task is not None:
        task = found.task
        text += (
            f"\naccuracy {task.first_accuracy:.4f} and {task.second_accuracy:.4f},"
            f" the same class in {100 * task.top1_agreement:.2f} % of samples\n"
        )
    for name in found.unpaired:
        text += f"not compared: {name}\n"
    return f"{text}\n{found.verdict}\n"
