"""edgekit check"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import ArtifactFilter, FiniteFloat, complete, failures, selection_options
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.core.records.regressions import ChangeReport, RegressionThresholds
    from edgekit.core.values.budgets import Budget


@click.command("check", short_help="Check measured figures against budgets.")
@selection_options
@click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("device"),
    help="Check only the benchmarks of this device; may be repeated.",
)
@click.option("--max-size", metavar="SIZE", help='Maximum size of each model file, such as "500 KB".')
@click.option("--max-peak-memory", metavar="SIZE", help="Maximum memory of loading and running a model.")
@click.option(
    "--max-drift",
    type=FiniteFloat(min=0),
    help="Maximum loss of the task metric; 0.01 is one percentage point of accuracy.",
)
@click.option(
    "--max-instructions",
    type=click.IntRange(min=1),
    help="Maximum number of instructions of one inference on the device's emulated core.",
)
@click.option(
    "--max-latency",
    "latencies",
    metavar="TIER=MS",
    multiple=True,
    help="Maximum latency in a tier in ms, such as host=5, or with a unit, device=5ms; may be repeated.",
)
@click.option(
    "--confidence",
    is_flag=True,
    help="Judge emulated latencies by the upper end of their interval; one without an interval fails.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="JSON report of an earlier run: fail on regressions and missing artifacts.",
)
@click.option(
    "--max-regression",
    metavar="SHARE",
    help="Allowed increase of size, instructions, analytic and emulated latency (default: 2%).",
)
@click.option(
    "--max-host-regression",
    metavar="SHARE",
    help="Allowed increase of host latency and peak memory, which vary more between runs (default: 20%).",
)
@click.option(
    "--max-metric-loss",
    type=FiniteFloat(min=0),
    help="Allowed loss of the task metric (default: 0.01, one percentage point of accuracy).",
)
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
    devices: tuple[str, ...],
    max_size: str | None,
    max_peak_memory: str | None,
    max_drift: float | None,
    max_instructions: int | None,
    latencies: tuple[str, ...],
    confidence: bool,
    baseline: Path | None,
    **thresholds: Any,
) -> int:
    """Check the figures of validate and bench against budgets; the exit code is 1 if a budget is exceeded.

    Limits come from model.toml, the device profile and these options; the strictest limit of a figure applies. A limit
    without a measurement counts as a failure.

    --baseline also compares with an earlier run, as written by `edgekit report --format json`. The check fails if an
    artifact is missing, or is larger, slower or less accurate by more than is allowed. Figures that were measured on
    another host are not compared; the output says so.

    \b
    Example:
      edgekit check
      edgekit check simple_cnn --target tflite:int8 --max-size "400 KB" --max-latency host=5
      edgekit check --baseline main.json --max-regression 1%
      edgekit check simple_cnn --device raspberry-pi-4b --max-latency emulated=10 --max-instructions 20000000
      edgekit check --device pi --max-latency device=5ms
      edgekit check simple_cnn --device raspberry-pi-4b --max-latency emulated=10 --confidence
    """
    from dataclasses import asdict

    from edgekit.stages.gates.gate import gate
    from edgekit.stages.selection import Selection

    budgets = _parse_budgets(max_size, max_peak_memory, max_drift, max_instructions, latencies)
    regression_thresholds = _regression_thresholds(baseline, **thresholds)
    with session.context() as context:
        result = gate(
            context, Selection(*artifact_filter), budgets, devices, baseline, regression_thresholds, confidence
        )
    data = {
        "passed": result.passed and not context.failures,
        "verdicts": [{**asdict(verdict), "sentence": verdict.sentence} for verdict in result.verdicts],
        "failures": failures(context),
    }
    if result.changes:
        from edgekit.reports.json import changes_data

        data["changes"] = changes_data(result.changes)
    shown = [verdict for verdict in result.verdicts if session.verbosity > 0 or not verdict.passed or verdict.undecided]
    lines = [line(f"{'passed' if verdict.passed else 'FAILED'}  {verdict.sentence}") for verdict in shown]
    count = f"{len(result.verdicts)} rules judged on {len(result.artifacts)} artifacts: "
    conclusion = f"{len(result.failed)} FAILED" if result.failed else "all passed"
    if context.failures:
        conclusion += f"; {len(context.failures)} artifacts could not be judged"
    session.print_result(
        data, lambda: "".join([*lines, _render_changes(result.changes, session.color), count, conclusion, "\n"])
    )
    return max(context.exit_code, 0 if result.passed else 1)


def _render_changes(changes: ChangeReport | None, color: bool) -> str:
    """Return the table of changes against the baseline."""
    from edgekit.reports.console import changes_table

    return "" if changes is None else line(f"against {changes.old}") + changes_table(changes, color)


def _regression_thresholds(
    baseline: Path | None, max_regression: str | None, max_host_regression: str | None, max_metric_loss: float | None
) -> RegressionThresholds:
    from edgekit.core.errors import InputError
    from edgekit.core.records.regressions import RegressionThresholds
    from edgekit.core.units import parse_share

    texts = {
        "--max-regression": max_regression,
        "--max-host-regression": max_host_regression,
        "--max-metric-loss": max_metric_loss,
    }
    used_options = [name for name, value in texts.items() if value is not None]
    if used_options and baseline is None:
        raise InputError(f"{used_options[0]} needs a --baseline to compare with")
    default = RegressionThresholds()
    shares: list[float] = []
    for option, text, share in (
        ("--max-regression", max_regression, default.share),
        ("--max-host-regression", max_host_regression, default.noisy),
    ):
        try:
            shares.append(share if text is None else parse_share(text))
        except ValueError as error:
            raise InputError(f"{option}: {error}") from None
    return RegressionThresholds(shares[0], shares[1], default.metric if max_metric_loss is None else max_metric_loss)


def _parse_budgets(
    size: str | None, memory: str | None, drift: float | None, instructions: int | None, latencies: tuple[str, ...]
) -> tuple[Budget, ...]:
    from edgekit.core.values.budgets import COMMAND_LINE
    from edgekit.stages.gates.gate import user_budgets

    return user_budgets(
        COMMAND_LINE,
        size=size,
        peak_memory=memory,
        drift=drift,
        instructions=instructions,
        latency_ms=tuple(map(_parse_latency, latencies)),
    )


def _parse_latency(text: str) -> tuple[str, float]:
    from edgekit.core.errors import InputError, unknown_name
    from edgekit.core.units import parse_seconds
    from edgekit.core.values.tiers import TIER_NAMES

    tier, _, figure = text.partition("=")
    if tier not in TIER_NAMES:
        raise unknown_name("tier", tier, TIER_NAMES)
    try:
        limit = float(figure) if figure.strip()[-1:].isdigit() else 1000 * parse_seconds(figure)
    except ValueError:
        raise InputError(f"--max-latency {text}: write it TIER=MS, for example host=5 or device=5ms") from None
    if not 0 < limit < float("inf"):
        raise InputError(f"--max-latency {text}: the limit must be more than 0 ms")
    return tier, limit
