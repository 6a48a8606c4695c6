"""edgekit validate"""

from __future__ import annotations

import click

from edgekit.cli._common import Run, common, failures, selection_options


@click.command("validate")
@selection_options
@common
def command(
    run: Run, models: tuple[str, ...], framework: str | None, targets: tuple[str, ...], precision: str | None
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

    with run.context() as context:
        chosen = artifacts(context, Selection(models, framework, targets, precision))
        done = validate(context, chosen)
        limits = {item.manifest.precision: tolerances_for(context, item).limits() for item in chosen}
    data = {
        "validations": [{**asdict(item), "passed": item.passed} for item in done],
        "tolerances": limits,
        "failures": failures(context),
    }
    header = ("model", "from", "variant", "figure", "value", "tolerance", "verdict")
    run.answer(data, lambda: table(header, _rows(done), left=4, color=run.color) if done else "")
    return max(context.exit_code, 0 if all(item.passed for item in done) else 1)


def _rows(validations):  # type: ignore[no-untyped-def]
    from edgekit.core.comparison import format_figure

    for item in validations:
        name = (item.model, item.kind, f"{item.target}:{item.precision}")
        for comparison in item.comparisons:
            if comparison.problem:
                yield (*name, comparison.problem, "", "", "FAILED")
            for figure in comparison.figures:
                limit = "" if figure.limit is None else f"{'>=' if _is_floor(figure.name) else '<='} {format_figure(figure.limit)}"
                verdict = "" if figure.limit is None else ("passed" if figure.passed else "FAILED")
                yield (*name, figure.name, format_figure(figure.value), limit, verdict)
        if item.drift is not None:
            drift = item.drift
            if drift.top1_agreement is not None:
                limit = "" if drift.min_top1_agreement is None else f">= {format_figure(drift.min_top1_agreement)}"
                figure = f"top1_agreement, {drift.samples} test samples"
                yield (*name, figure, f"{drift.top1_agreement:.4f}", limit, "passed" if drift.passed else "FAILED")
            yield (*name, f"{drift.metric} drop from {drift.source:.4f}", f"{drift.drop:+.4f}", "", "")
