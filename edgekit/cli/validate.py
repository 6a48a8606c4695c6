"""edgekit validate"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import Choice, Run, common, failures, selection_options, timeout_option

if TYPE_CHECKING:
    from edgekit.core.validation import Drift, Validation


@click.command("validate", short_help="Compare artifacts with what they were made from.")
@selection_options
@timeout_option
@common
def command(
    run: Run,
    choice: Choice,
    timeout: float,
) -> int:
    """Run artifacts on their golden samples and compare with the source; without a MODEL, everything in build/.

    A MODEL may also be an artifact's folder, wherever it stands. Exit code 1 when one is not equivalent.

    \b
    Example:
      edgekit validate
      edgekit validate simple_cnn --target tflite:int8
      edgekit validate build/simple_cnn/torch/onnx-float32 --json
    """
    from dataclasses import asdict

    from edgekit.reports.console import table
    from edgekit.stages.select import Selection, artifacts
    from edgekit.stages.validate import tolerances_for, validate

    with run.context(timeout) as context:
        chosen = artifacts(context, Selection(*choice))
        done = validate(context, chosen)
        limits = {item.manifest.precision: tolerances_for(context, item).limits() for item in chosen}
    data = {
        "validations": [{**asdict(item), "passed": item.passed} for item in done],
        "tolerances": limits,
        "failures": failures(context),
    }
    header = ("model", "variant", "figure", "value", "tolerance", "verdict")
    run.answer(data, lambda: table(header, _named_once(_rows(done, run.verbosity > 0)), left=3, color=run.color))
    return max(context.exit_code, 0 if all(item.passed for item in done) else 1)


def _named_once(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The rows, each artifact's name only in its first one."""
    before: tuple[str, ...] = ()
    for row in rows:
        yield row if row[:2] != before else ("", "", *row[2:])
        before = row[:2]


def _rows(validations: Sequence[Validation], every: bool) -> Iterator[tuple[str, ...]]:
    """The figures that have a tolerance, beside it; all of them with -v."""
    from edgekit.core.comparison import format_figure

    for item in validations:
        name = (f"{item.model}/{item.kind}", f"{item.target}:{item.precision}")
        for comparison in item.comparisons:
            of = f"{comparison.output}: " if len(item.comparisons) > 1 else ""
            if comparison.problem:
                yield (*name, f"{of}{comparison.problem}", "", "", "FAILED")
            for figure in comparison.figures:
                if every or figure.limit is not None:
                    verdict = "" if figure.limit is None else _verdict(figure.passed)
                    yield (*name, f"{of}{figure.name}", format_figure(figure.value), figure.limit_text, verdict)
        if item.drift is not None:
            yield from ((*name, *cells) for cells in _drift_rows(item.drift))


def _drift_rows(drift: Drift) -> Iterator[tuple[str, str, str, str]]:
    from edgekit.core.comparison import format_figure

    if drift.top1_agreement is not None:
        limit = "" if drift.min_top1_agreement is None else f">= {format_figure(drift.min_top1_agreement)}"
        yield (f"top-1 of {drift.samples} tests", f"{drift.top1_agreement:.4f}", limit, _verdict(drift.passed))
    yield (f"{drift.metric} {drift.source:.4f} drops", f"{drift.drop:+.4f}", "", "")
    if drift.interval is not None:
        yield ("  with 95 % between", f"{drift.interval.low:+.4f}", f"and {drift.interval.high:+.4f}", "")
    yield from _doubts(drift)


def _doubts(drift: Drift) -> Iterator[tuple[str, str, str, str]]:
    """What the test set can tell, where there is something to tell: flips, the worst class, its power."""
    if drift.lost is not None and drift.lost + (drift.won or 0):
        yield (f"  {drift.lost} samples lost, {drift.won} won", f"p {drift.p_value:.3g}", "", "")
    if drift.classes and drift.classes[0].drop > 0:
        worst = drift.classes[0]
        yield (f"  class {worst.label} suffers most", f"{worst.drop:+.4f}", f"of {worst.samples}", "")
    if drift.detectable is not None:
        yield ("  drops below this go unseen", f"{drift.detectable:.4f}", "", "")


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"
