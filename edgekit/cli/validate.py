"""edgekit validate"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import (
    ArtifactFilter,
    CommandSession,
    RenamedOption,
    common,
    complete,
    executor_option,
    failures,
    runtime_option,
    selection_options,
    timeout_option,
)

if TYPE_CHECKING:
    from edgekit.core.numerics.output_comparison import Comparison
    from edgekit.core.records.validation import Drift, Validation
    from edgekit.core.values.tolerances import Tolerances


@click.command("validate", short_help="Compare artifacts with their source models.")
@selection_options
@click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("device"),
    help="Also run on the emulated core of this device, and compare with this host; may be repeated.",
)
@runtime_option
@executor_option
@click.option(
    "--stress",
    cls=RenamedOption,
    former=("--hard",),
    is_flag=True,
    help="Also test stress inputs: zeros, extremes, noise, out-of-range values, denormals, batches.",
)
@click.option("--explain", is_flag=True, help="Print where each tolerance comes from.")
@timeout_option
@common
def command(
    session: CommandSession,
    choice: ArtifactFilter,
    devices: tuple[str, ...],
    runtime: str,
    executors: tuple[str, ...],
    stress: bool,
    explain: bool,
    timeout: float,
) -> int:
    """Run artifacts on their golden samples and compare with the source; without a MODEL, everything in build/.

    A MODEL may also be the path of an artifact folder. The exit code is 1 if an artifact is not equivalent.

    \b
    Example:
      edgekit validate
      edgekit validate simple_cnn --target tflite:int8
      edgekit validate build/simple_cnn/torch/onnx-float32 --json
      edgekit validate simple_cnn --device raspberry-pi-4b
      edgekit validate gru --precision float32 --explain
      edgekit validate gru --stress
      edgekit validate simple_cnn --target tflite:int8 --runtime tflite-micro
    """
    from dataclasses import asdict

    from edgekit.reports.console import table
    from edgekit.stages.selection import Selection, artifacts, with_runtime
    from edgekit.stages.validation.validate import reasons_for, tolerances_for, validate_at

    with session.context(timeout) as context:
        chosen = with_runtime(context, artifacts(context, Selection(*choice)), runtime)
        done = validate_at(context, chosen, devices, executors, runtime=runtime, stress=stress, timeout_s=timeout)
        limits = {item.label: _limits(tolerances_for(context, item)) for item in chosen}
        reasons = {item.label: reasons_for(context, item) for item in chosen} if explain else {}
    data = {
        "validations": [{**asdict(item), "passed": item.passed} for item in done],
        "tolerances": limits,
        "failures": failures(context),
        **({"reasons": reasons} if explain else {}),
    }
    header = ("model", "variant", "figure", "value", "tolerance", "verdict")
    rows = _rows(done, session.verbosity > 0)
    session.answer(
        data, lambda: table(header, _named_once(rows), left=3, color=session.color) + "".join(_told(reasons, limits))
    )
    return max(context.exit_code, 0 if all(item.passed for item in done) else 1)


def _limits(tolerances: Mapping[str, Tolerances]) -> dict[str, Mapping[str, float]]:
    return {output: item.limits() for output, item in tolerances.items()}


def _told(
    reasons: Mapping[str, Mapping[str, Mapping[str, str]]], limits: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> Iterator[str]:
    """Why each tolerance is what it is, artifact by artifact."""
    for label, outputs in reasons.items():
        yield f"\n{label}\n"
        for output, told in outputs.items():
            for limit, sentence in told.items():
                yield f"  {output}: {limit} {limits[label][output][limit]:.8g}: {sentence}\n"


def _named_once(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The rows, each artifact's name only in its first one."""
    before: tuple[str, ...] = ()
    for row in rows:
        yield row if row[:2] != before else ("", "", *row[2:])
        before = row[:2]


def _rows(validations: Sequence[Validation], every: bool) -> Iterator[tuple[str, ...]]:
    """The figures that have a tolerance, beside it; all of them with -v."""
    for item in validations:
        on = f" on {item.place}" if item.device else ""
        name = (f"{item.model}/{item.kind}", f"{item.variant}{on}")
        yield from ((*name, *cells) for cells in _comparison_rows(item.comparisons, "", every))
        yield from ((*name, *cells) for cells in _comparison_rows(item.against_host, "to host: ", every))
        for comparison in item.stress:
            label = f"{item.stress_case(comparison)}: "
            yield from ((*name, *cells) for cells in _comparison_rows([comparison], label, every))
        for comparison in item.batches:
            yield from ((*name, *cells) for cells in _comparison_rows([comparison], f"{comparison.output}: ", every))
        if item.drift is not None:
            yield from ((*name, *cells) for cells in _drift_rows(item.drift))


def _comparison_rows(comparisons: Sequence[Comparison], to: str, every: bool) -> Iterator[tuple[str, str, str, str]]:
    from edgekit.core.numerics.output_comparison import format_figure

    for comparison in comparisons:
        of = f"{to}{comparison.output}: " if len(comparisons) > 1 else to
        if comparison.problem:
            yield (f"{of}{comparison.problem}", "", "", "FAILED")
        for figure in comparison.figures:
            if every or figure.limit is not None:
                verdict = "" if figure.limit is None else _verdict(figure.passed)
                yield (f"{of}{figure.name}", format_figure(figure.value), figure.limit_text, verdict)


def _drift_rows(drift: Drift) -> Iterator[tuple[str, str, str, str]]:
    from edgekit.core.numerics.output_comparison import format_figure

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
        yield (f"  class {worst.label} drops most", f"{worst.drop:+.4f}", f"of {worst.samples}", "")
    if drift.detectable is not None:
        yield ("  smallest detectable drop", f"{drift.detectable:.4f}", "", "")


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"
