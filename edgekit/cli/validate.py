"""edgekit validate"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import (
    AliasedOption,
    ArtifactFilter,
    complete,
    executor_option,
    failures,
    runtime_option,
    selection_options,
    timeout_option,
)
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

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
    help="Run on this board or phone, in this browser, or on this device's emulated core, and compare with this host;"
    " may be repeated.",
)
@runtime_option
@executor_option
@click.option(
    "--stress",
    cls=AliasedOption,
    aliases=("--hard",),
    is_flag=True,
    help="Also test stress inputs, on this host: zeros, extremes, noise, out-of-range values, denormals, batches.",
)
@click.option("--explain", is_flag=True, help="Print where each tolerance comes from.")
@timeout_option
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
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
      edgekit validate simple_cnn --device pi
      edgekit validate simple_cnn --device chromium
      edgekit validate gru --precision float32 --explain
      edgekit validate gru --stress
      edgekit validate simple_cnn --target tflite:int8 --runtime tflite-micro
    """
    from dataclasses import asdict

    from edgekit.reports.console import table
    from edgekit.stages.selection import Selection, artifacts, with_runtime
    from edgekit.stages.validation.artifact_tolerances import reasons_for, tolerances_for
    from edgekit.stages.validation.validate_on_devices import validate_at

    with session.context(timeout) as context:
        selected = with_runtime(context, artifacts(context, Selection(*artifact_filter)), runtime)
        validations = validate_at(
            context, selected, devices, executors, runtime=runtime, stress=stress, timeout_s=timeout
        )
        limits = {artifact.label: _limits(tolerances_for(context, artifact)) for artifact in selected}
        reasons = {artifact.label: reasons_for(context, artifact) for artifact in selected} if explain else {}
    data = {
        "validations": [{**asdict(validation), "passed": validation.passed} for validation in validations],
        "tolerances": limits,
        "failures": failures(context),
        **({"reasons": reasons} if explain else {}),
    }
    header = ("model", "variant", "figure", "value", "tolerance", "verdict")
    rows = _rows(validations, session.verbosity > 0)
    session.print_result(
        data,
        lambda: (
            table(header, _without_repeated_names(rows), left=3, color=session.color)
            + "".join(_explanation_lines(reasons, limits))
        ),
    )
    return max(context.exit_code, 0 if all(validation.passed for validation in validations) else 1)


def _limits(tolerances: Mapping[str, Tolerances]) -> dict[str, Mapping[str, float]]:
    return {output: tolerance.limits() for output, tolerance in tolerances.items()}


def _explanation_lines(
    reasons: Mapping[str, Mapping[str, Mapping[str, str]]], limits: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> Iterator[str]:
    """Yield lines that explain each tolerance, artifact by artifact."""
    for label, outputs in reasons.items():
        yield "\n" + line(str(label))
        for output, reasons_by_limit in outputs.items():
            for limit, reason in reasons_by_limit.items():
                yield line(f"  {output}: {limit} {limits[label][output][limit]:.8g}: {reason}")


def _without_repeated_names(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the rows, with the name of an artifact only in its first row."""
    previous: tuple[str, ...] = ()
    for row in rows:
        yield row if row[:2] != previous else ("", "", *row[2:])
        previous = row[:2]


def _rows(validations: Sequence[Validation], show_all: bool) -> Iterator[tuple[str, ...]]:
    """Yield the figures that have a tolerance, or all figures if `show_all`."""
    for validation in validations:
        place = f" on {validation.place}" if validation.device else ""
        name = (f"{validation.model}/{validation.kind}", f"{validation.variant}{place}")
        yield from ((*name, *cells) for cells in _comparison_rows(validation.comparisons, "", show_all))
        yield from ((*name, *cells) for cells in _comparison_rows(validation.against_host, "to host: ", show_all))
        for comparison in validation.stress:
            label = f"{validation.stress_case(comparison)}: "
            yield from ((*name, *cells) for cells in _comparison_rows([comparison], label, show_all))
        for comparison in validation.batches:
            yield from ((*name, *cells) for cells in _comparison_rows([comparison], f"{comparison.output}: ", show_all))
        if validation.drift is not None:
            yield from ((*name, *cells) for cells in _drift_rows(validation.drift))
        if validation.by_default or (show_all and validation.arithmetic):
            yield (*name, f"computed by {validation.arithmetic}", "", "", "")
        yield from ((*name, *cells) for cells in _comparison_rows(validation.by_default, "without options: ", True))


def _comparison_rows(
    comparisons: Sequence[Comparison], prefix: str, show_all: bool
) -> Iterator[tuple[str, str, str, str]]:
    from edgekit.core.numerics.output_comparison import format_figure

    for comparison in comparisons:
        label = f"{prefix}{comparison.output}: " if len(comparisons) > 1 else prefix
        if comparison.problem:
            yield (f"{label}{comparison.problem}", "", "", "FAILED")
        for figure in comparison.figures:
            if show_all or figure.limit is not None:
                verdict = "" if figure.limit is None else _format_verdict(figure.passed)
                yield (f"{label}{figure.name}", format_figure(figure.value), figure.limit_text, verdict)
        for channel in comparison.lost:
            yield (f"{label}{channel}", "", "", "FAILED")
        if not comparison.evidence:
            yield (f"{label}the same for all samples, which is no evidence", "", "", "")


def _drift_rows(drift: Drift) -> Iterator[tuple[str, str, str, str]]:
    from edgekit.core.numerics.output_comparison import format_figure

    if drift.top1_agreement is not None:
        limit = "" if drift.min_top1_agreement is None else f">= {format_figure(drift.min_top1_agreement)}"
        yield (f"top-1 of {drift.samples} tests", f"{drift.top1_agreement:.4f}", limit, _format_verdict(drift.passed))
    yield (f"{drift.metric} {drift.source:.4f} drops", f"{drift.drop:+.4f}", "", "")
    if drift.interval is not None:
        yield ("  with 95 % between", f"{drift.interval.low:+.4f}", f"and {drift.interval.high:+.4f}", "")
    yield from _evidence_rows(drift)


def _evidence_rows(drift: Drift) -> Iterator[tuple[str, str, str, str]]:
    """Yield rows on the evidence of the test set: changed predictions, worst class, smallest detectable drop."""
    if drift.lost is not None and drift.lost + (drift.won or 0):
        yield (f"  {drift.lost} samples lost, {drift.won} won", f"p {drift.p_value:.3g}", "", "")
    if drift.classes and drift.classes[0].drop > 0:
        worst = drift.classes[0]
        yield (f"  class {worst.label} drops most", f"{worst.drop:+.4f}", f"of {worst.samples}", "")
    if drift.detectable is not None:
        yield ("  smallest detectable drop", f"{drift.detectable:.4f}", "", "")


def _format_verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"
