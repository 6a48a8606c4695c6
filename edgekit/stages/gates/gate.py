"""Gates a release: judges a selection of artifacts by budgets and by a comparison with a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edgekit.core.errors import InputError
from edgekit.core.records.check_result import CheckResult
from edgekit.core.records.regressions import RegressionThresholds
from edgekit.core.records.report import load_report
from edgekit.core.units import parse_bytes
from edgekit.core.values.budgets import Budget, BudgetTable
from edgekit.stages.context import Context
from edgekit.stages.gates.check import check
from edgekit.stages.gates.gather_report import gather
from edgekit.stages.gates.regressions import compare_with_baseline
from edgekit.stages.selection import Selection, artifacts


def user_budgets(
    origin: str,
    *,
    size: int | str | None,
    peak_memory: int | str | None,
    drift: float | None,
    instructions: int | None,
    latency_ms: Iterable[tuple[str, float]],
) -> tuple[Budget, ...]:
    """Build the budgets that a user sets for all artifacts of a check.

    Args:
        origin: Where the budgets are set, for the verdicts.
        size: Largest size of the model files: bytes, or text such as `500 KB`.
        peak_memory: Largest peak memory, likewise.
        drift: Largest loss in the unit of the task metric.
        instructions: Most instructions of one inference on the emulated core.
        latency_ms: Pairs of tier and largest latency in ms.

    Returns:
        One budget for each limit that is set.

    Raises:
        InputError: A size cannot be parsed.
    """
    try:
        size_bytes, memory_bytes = (
            parse_bytes(limit) if isinstance(limit, str) else limit for limit in (size, peak_memory)
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    return BudgetTable("*", size_bytes, memory_bytes, drift, tuple(latency_ms), instructions).budgets(origin)


def gate(
    context: Context,
    selection: Selection,
    budgets: Sequence[Budget],
    devices: Sequence[str] = (),
    baseline: Path | None = None,
    thresholds: RegressionThresholds | None = None,
    confidence: bool = False,
) -> CheckResult:
    """Judge artifacts against their budgets, and against an earlier run where a baseline is given.

    Args:
        context: The project; artifacts that cannot be read go to its failures.
        selection: The artifacts.
        budgets: Budgets of the user, in addition to those of models and devices.
        devices: Devices whose measurements are judged; empty for all.
        baseline: Report of an earlier run, written by `edgekit report --format json`.
        thresholds: How much worse than the baseline a value may be; None for the defaults.
        confidence: Whether emulated latencies are judged by the upper end of their interval.

    Returns:
        The verdicts and the changes.

    Raises:
        InputError: The selection is empty, a device was not measured, or a file is damaged.
    """
    selected = artifacts(context, selection, files=True)
    verdicts = check(context, selected, budgets, devices, confidence)
    if baseline is None:
        return CheckResult(selected, verdicts)
    earlier = load_report(baseline)
    current = gather(context, selected)
    report = compare_with_baseline(
        current, earlier, str(baseline), selection, devices, thresholds or RegressionThresholds()
    )
    return CheckResult(selected, verdicts, report.changes)
