"""edgekit compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import fix_option, pair_option, parse_pairs, timeout_option
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

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
@fix_option
@pair_option
@click.option(
    "--precision", metavar="NAME", help="Precision whose tolerances apply (default: that of the coarser file)."
)
@timeout_option
@common_options
def command(
    session: CommandSession,
    first: str,
    second: str,
    samples: Path,
    labels: Path | None,
    fixed: tuple[str, ...],
    pairs: tuple[str, ...],
    precision: str | None,
    timeout: float,
) -> int:
    """Run two models on the same samples and compare their outputs; FIRST is the reference.

    A model is a file of any format (.tflite, .onnx, .keras, .h5, .pt2, .pte, .ptl, TorchScript), a folder of a
    SavedModel, of transformers or of MLflow, an artifact folder, or code (FILE.py:FUNCTION). Tensors are paired by
    name, otherwise by shape and order. Layouts are converted, and quantized inputs and outputs are scaled. The pairing
    is printed; correct it with --pair.

    The exit code is 0 if the outputs are equal within the tolerances. It is 1 if they differ, or if the comparison
    proves nothing because the reference computes the same output for all samples.

    \b
    Example:
      edgekit compare model.onnx model.tflite --samples inputs.npz
      edgekit compare trained.h5 published_int8.tflite --samples photos.npz --labels classes.npy
    """
    from dataclasses import asdict

    from edgekit.core.values.fixed_inputs import parse_fixed
    from edgekit.stages.validation.compare import EQUAL, compare

    forced_pairs, values = parse_pairs(pairs), dict(map(parse_fixed, fixed))
    with session.context(timeout) as context:
        result = compare(
            context,
            (first, second),
            samples,
            labels=labels,
            forced=forced_pairs,
            precision=precision,
            fixed=values,
        )
    session.print_result(asdict(result), lambda: _render(result, session))
    return 0 if result.verdict == EQUAL else 1


def _render(equivalence: Equivalence, session: CommandSession) -> str:
    from edgekit.core.numerics.output_comparison import format_figure
    from edgekit.reports.console import table

    sides = [("input", pair) for pair in equivalence.inputs] + [("output", pair) for pair in equivalence.outputs]
    rows = [(side, str(pair.first), str(pair.second), pair.method) for side, pair in sides]
    text = line(f"A  {equivalence.first}") + line(f"B  {equivalence.second}") + "\n"
    text += table(("", "A", "B", "paired by"), rows, left=4, color=session.color)
    figures = [
        (
            comparison.output,
            str(figure.name),
            format_figure(figure.value),
            figure.limit_text,
            "passed" if figure.passed else "FAILED",
        )
        for comparison in equivalence.comparisons
        for figure in comparison.figures
        if session.verbosity > 0 or figure.limit is not None
    ]
    figures += [
        (comparison.output, comparison.problem, "", "", "FAILED")
        for comparison in equivalence.comparisons
        if comparison.problem
    ]
    figures += [
        (comparison.output, str(channel), "", "", "FAILED")
        for comparison in equivalence.comparisons
        for channel in comparison.lost
    ]
    text += "\n" + table(
        ("output", "figure", "value", f"tolerance ({equivalence.precision})", "verdict"), figures, left=2
    )
    if equivalence.task is not None:
        task = equivalence.task
        text += (
            f"\naccuracy {task.first_accuracy:.4f} and {task.second_accuracy:.4f},"
            f" the same class in {100 * task.top1_agreement:.2f} % of samples\n"
        )
    for name in equivalence.unpaired:
        text += line(f"not compared: {name}")
    return text + "\n" + line(equivalence.verdict)
