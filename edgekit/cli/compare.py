"""edgekit compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import CommandSession, common, forced_pairs, pair_option, timeout_option

if TYPE_CHECKING:
    from edgekit.stages.validation.compare import Equivalence


@click.command("compare", short_help="Check whether two model files compute the same results.")
@click.argument("first")
@click.argument("second")
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    required=True,
    help="Real inputs by name: npz; npy for a single input.",
)
@click.option("--labels", type=click.Path(path_type=Path), help="Class labels of the samples, to compare accuracy.")
@pair_option
@click.option(
    "--precision", metavar="NAME", help="Precision whose tolerances apply (default: that of the coarser file)."
)
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
    """Run two models on the same samples and compare their outputs; FIRST is the reference.

    A model is a file of any format (.tflite, .onnx, .keras, .h5, .pt2, .pte, .ptl, TorchScript), a SavedModel folder,
    an artifact folder, or code (FILE.py:FUNCTION). Tensors are paired by name, otherwise by shape and order. Layouts
    are converted, and quantized inputs and outputs are scaled. The pairing is printed; correct it with --pair.

    The exit code is 0 if the outputs are equal within the tolerances. It is 1 if they differ, or if the comparison
    proves nothing because the reference computes the same output for all samples.

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
