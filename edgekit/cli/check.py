"""edgekit check"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgekit.cli._common import Choice, Run, common, complete, failures, selection_options

if TYPE_CHECKING:
    from edgekit.core.budgets import Budget


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
@common
def command(
    run: Run,
    choice: Choice,
    devices: tuple[str, ...],
    max_size: str | None,
    max_peak_memory: str | None,
    max_drift: float | None,
    max_instructions: int | None,
    latencies: tuple[str, ...],
) -> int:
    """Judge the figures of validate and bench against the budgets; exit code 1 when one is broken.

    Limits come from model.toml, the device profile and these options; for each figure the strictest wins. A limit
    without a figure is broken: a gate does not pass on trust.

    \b
    Example:
      edgekit check
      edgekit check simple_cnn --target tflite:int8 --max-size "400 KB" --max-latency host=5
      edgekit check simple_cnn --device raspberry-pi-4b --max-latency emulated=10 --max-instructions 20000000
    """
    from dataclasses import asdict

    from edgekit.stages.check import check
    from edgekit.stages.select import Selection, artifacts

    own = _budgets(max_size, max_peak_memory, max_drift, max_instructions, latencies)
    with run.context() as context:
        chosen = artifacts(context, Selection(*choice))
        verdicts = check(context, chosen, own, devices)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    passed = not failed and not context.failures
    data = {
        "passed": passed,
        "verdicts": [{**asdict(verdict), "sentence": verdict.sentence} for verdict in verdicts],
        "failures": failures(context),
    }
    told = verdicts if run.verbosity > 0 else [item for item in verdicts if not item.passed or item.undecided]
    lines = [f"{'passed' if verdict.passed else 'FAILED'}  {verdict.sentence}\n" for verdict in told]
    count = f"{len(verdicts)} rules judged on {len(chosen)} artifacts: "
    run.answer(data, "".join([*lines, count, "all passed\n" if not failed else f"{len(failed)} FAILED\n"]))
    return max(context.exit_code, 0 if not failed else 1)


def _budgets(
    size: str | None, memory: str | None, drift: float | None, instructions: int | None, latencies: tuple[str, ...]
) -> tuple[Budget, ...]:
    from edgekit.core.budgets import BudgetTable
    from edgekit.core.errors import InputError
    from edgekit.core.units import parse_bytes

    try:
        sizes = [None if text is None else parse_bytes(text) for text in (size, memory)]
    except ValueError as error:
        raise InputError(str(error)) from None
    latency_ms = tuple(_latency(text) for text in latencies)
    return BudgetTable("*", sizes[0], sizes[1], drift, latency_ms, instructions).budgets("the command line")


def _latency(text: str) -> tuple[str, float]:
    from edgekit.core.budgets import TIERS
    from edgekit.core.errors import InputError, unknown_name

    tier, _, figure = text.partition("=")
    if tier not in TIERS:
        raise unknown_name("tier", tier, TIERS)
    try:
        limit = float(figure)
    except ValueError:
        raise InputError(f"--max-latency {text}: write it TIER=MS, for example host=5") from None
    if not 0 < limit < float("inf"):
        raise InputError(f"--max-latency {text}: the limit must be more than 0 ms")
    return tier, limit
