"""edgekit check"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import ArtifactFilter, CommandSession, common, complete, failures, selection_options

if TYPE_CHECKING:
    from edgekit.core.records.regressions import ChangeReport, RegressionThresholds
    from edgekit.core.values.budgets import Budget


@click.command("check", short_help="Judge the figures against the budgets.")
@selection_options
@click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("device"),
    help="Only the benches of this device.",
)
@click.option("--max-size", metavar="SIZE", help='For each model file, such as "500 KB".')
@click.option("--max-peak-memory", metavar="SIZE", help="Of loading and running.")
@click.option(
    "--max-drift", type=click.FloatRange(min=0), help="In the unit of the task metric: 0.01 is a point of accuracy."
)
@click.option("--max-instructions", type=click.IntRange(min=1), help="Of one inference on the device's emulated core.")
@click.option("--max-latency", "latencies", metavar="TIER=MS", multiple=True, help="Such as host=5; may be repeated.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="An earlier report's JSON: fail on what got worse, or is gone.",
)
@click.option(
    "--max-regression",
    metavar="SHARE",
    help="How much more size, instructions, analytic and emulated latency may be (default: 2%).",
)
@click.option(
    "--max-host-regression",
    metavar="SHARE",
    help="The same for what is measured on this host, which repeats less well: latency, peak memory (default: 20%).",
)
@click.option(
    "--max-metric-loss",
    type=click.FloatRange(min=0),
    help="In the unit of the task metric (default: 0.01, a point of accuracy).",
)
@common
def command(
    session: CommandSession,
    choice: ArtifactFilter,
    devices: tuple[str, ...],
    max_size: str | None,
    max_peak_memory: str | None,
    max_drift: float | None,
    max_instructions: int | None,
    latencies: tuple[str, ...],
    baseline: Path | None,
    **thresholds: Any,
) -> int:
    """Judge the figures of validate and bench against the budgets; exit code 1 when one is broken.

    Limits come from model.toml, the device profile and these options; for each figure the strictest wins. A limit
    without a figure is broken: a gate does not pass on trust.

    --baseline also judges against an earlier run, as `edgekit report --format json` wrote it: what is larger, slower or
    less accurate by more than is allowed, and artifacts that are gone. What was measured on another host is not
    compared, and that is said.

    \b
    Example:
      edgekit check
      edgekit check simple_cnn --target tflite:int8 --max-size "400 KB" --max-latency host=5
      edgekit check --baseline main.json --max-regression 1%
      edgekit check simple_cnn --device raspberry-pi-4b --max-latency emulated=10 --max-instructions 20000000
    """
    from dataclasses import asdict

    from edgekit.stages.gates.gate import gate
    from edgekit.stages.selection import Selection

    budgets = _budgets(max_size, max_peak_memory, max_drift, max_instructions, latencies)
    allowance = _allowance(baseline, **thresholds)
    with session.context() as context:
        result = gate(context, Selection(*choice), budgets, devices, baseline, allowance)
    data = {
        "passed": result.passed and not context.failures,
        "verdicts": [{**asdict(verdict), "sentence": verdict.sentence} for verdict in result.verdicts],
        "failures": failures(context),
    }
    if result.changes:
        from edgekit.reports.json import changes_data

        data["changes"] = changes_data(result.changes)
    shown = [item for item in result.verdicts if session.verbosity > 0 or not item.passed or item.undecided]
    lines = [f"{'passed' if verdict.passed else 'FAILED'}  {verdict.sentence}\n" for verdict in shown]
    count = f"{len(result.verdicts)} rules judged on {len(result.artifacts)} artifacts: "
    conclusion = f"{len(result.failed)} FAILED\n" if result.failed else "all passed\n"
    session.answer(data, lambda: "".join([*lines, _changed(result.changes, session.color), count, conclusion]))
    return max(context.exit_code, 0 if result.passed else 1)


def _changed(changes: ChangeReport | None, color: bool) -> str:
    """What changed, in one table."""
    from edgekit.reports.console import changes_table

    return "" if changes is None else f"against {changes.old}\n{changes_table(changes, color)}"


def _allowance(
    baseline: Path | None, max_regression: str | None, max_host_regression: str | None, max_metric_loss: float | None
) -> RegressionThresholds:
    from edgekit.core.errors import InputError
    from edgekit.core.records.regressions import RegressionThresholds
    from edgekit.core.units import parse_share

    given = {
        "--max-regression": max_regression,
        "--max-host-regression": max_host_regression,
        "--max-metric-loss": max_metric_loss,
    }
    named = [name for name, value in given.items() if value is not None]
    if named and baseline is None:
        raise InputError(f"{named[0]} needs a --baseline to compare with")
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


def _budgets(
    size: str | None, memory: str | None, drift: float | None, instructions: int | None, latencies: tuple[str, ...]
) -> tuple[Budget, ...]:
    from edgekit.stages.gates.gate import user_budgets

    return user_budgets(
        "the command line",
        size=size,
        peak_memory=memory,
        drift=drift,
        instructions=instructions,
        latency_ms=tuple(map(_latency, latencies)),
    )


def _latency(text: str) -> tuple[str, float]:
    from edgekit.core.errors import InputError, unknown_name
    from edgekit.core.values.tiers import TIER_NAMES

    tier, _, figure = text.partition("=")
    if tier not in TIER_NAMES:
        raise unknown_name("tier", tier, TIER_NAMES)
    try:
        limit = float(figure)
    except ValueError:
        raise InputError(f"--max-latency {text}: write it TIER=MS, for example host=5") from None
    if not 0 < limit < float("inf"):
        raise InputError(f"--max-latency {text}: the limit must be more than 0 ms")
    return tier, limit
