"""Compares a bench with an earlier one and reports regressions beyond the allowed share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.records.measurement import Measurement, measurement_from_dict
from edgekit.core.records.operator_costs import explain_slowdown, operator_count_changes
from edgekit.core.values.budgets import Verdict, format_rule
from edgekit.core.values.tiers import is_repeatable, tier_of_rule
from edgekit.core.values.typed_json import decode_any

# The latency that was measured on the device itself.
DEVICE_RULE = "latency_ms.device"


def load_baseline(path: Path) -> tuple[Measurement, ...]:
    """Read the measurements of a baseline.

    Args:
        path: A bench-<device>.json, or the output of `edgekit bench --json` or `edgekit report --format json`.

    Returns:
        The measurements.

    Raises:
        InputError: The file has no measurements, or is damaged.
    """
    data = read_json(path, "baseline")
    if "artifacts" in data:
        rows = decode_any(tuple[Mapping[str, Any], ...], data["artifacts"], f"{path}: artifacts")
        stored = {f"artifacts[{index}].measurements": row.get("measurements", []) for index, row in enumerate(rows)}
    else:
        stored = {"measurements": data.get("measurements", [data])}
    measurements = tuple(
        measurement_from_dict(entry, Path(f"{path}: {place}[{index}]"))
        for place, entries in stored.items()
        for index, entry in enumerate(decode_any(tuple[Any, ...], entries, f"{path}: {place}"))
    )
    if not measurements:
        raise InputError(f"{path}: this baseline has no measurements; write one with: edgekit bench --json")
    return measurements


def comparable_figures(measurement: Measurement) -> dict[str, float]:
    """Return the values of a measurement that are compared with a baseline.

    Args:
        measurement: The measurement.

    Returns:
        The values by rule: `size_bytes`, `latency_ms.<tier>` and `instructions`.
    """
    figures = {f"latency_ms.{tier}": latency for tier, latency in measurement.latency_ms.items()}
    figures = {"size_bytes": float(measurement.size_bytes), **figures}
    if measurement.emulated is not None:
        figures["instructions"] = measurement.emulated.counts.instructions
    return figures


def _key(measurement: Measurement) -> tuple[str, ...]:
    # The runtime: one artifact may be measured with several on a device.
    return (measurement.model, measurement.kind, str(measurement.variant), measurement.device, measurement.runtime)


def regressions(
    baseline: Sequence[Measurement], current: Sequence[Measurement], allowed: float, origin: str
) -> tuple[Verdict, ...]:
    """Judge measurements against those of a baseline.

    Args:
        baseline: The measurements of the baseline.
        current: The measurements to judge; those without a counterpart in the baseline are ignored.
        allowed: The allowed relative increase; 0.02 allows 2 %.
        origin: The name of the baseline, for messages.

    Returns:
        A verdict for each value of the baseline; a value that is missing now counts as a failure.

    Raises:
        InputError: No artifact is in both, or the emulated tiers differ in their number of threads.
    """
    before = {_key(measurement): measurement for measurement in baseline}
    pairs = [(before[_key(measurement)], measurement) for measurement in current if _key(measurement) in before]
    if current and not pairs:
        raise InputError(f"{origin}: this baseline contains none of the benched artifacts")
    return tuple(verdict for old, new in pairs for verdict in _judge_pair(old, new, allowed, origin))


def _judge_pair(old: Measurement, new: Measurement, allowed: float, origin: str) -> list[Verdict]:
    before, now = comparable_figures(old), comparable_figures(new)
    if not {"instructions", DEVICE_RULE}.isdisjoint({*before, *now}):
        # Host latencies vary more from run to run than most changes of a model do: prefer what repeats, and what the
        # device itself shows within its measured noise.
        before = {rule: figure for rule, figure in before.items() if is_repeatable(rule) or rule == DEVICE_RULE}
    if old.emulated is not None and new.emulated is not None and old.emulated.threads != new.emulated.threads:
        raise InputError(
            f"{origin}: this baseline was predicted for {old.emulated.threads} threads, not {new.emulated.threads};"
            f" measure with {old.emulated.threads} threads",
            parameters=("threads",),
        )
    explanation = _explain_regression(old, new)
    return [
        _verdict(new, rule, before[rule], now, allowed + interval_noise(rule, old, new), origin, explanation)
        for rule in sorted(before)
    ]


def interval_noise(rule: str, old: Measurement, new: Measurement) -> float:
    """Return how much two latencies of a device may differ by its own noise, relative to the earlier one.

    The noise of a measurement is the range of the medians of several processes, relative to the latency. That of both
    measurements adds up.

    Args:
        rule: The rule.
        old: The earlier measurement.
        new: The present one.

    Returns:
        The relative difference; 0 for what is not measured on a device, or has no interval.
    """
    tier = tier_of_rule(rule)
    if tier is None or tier.name != "device":
        return 0.0
    noise = 0.0
    for measurement in (old, new):
        interval = measurement.interval_ms(tier.name)
        if interval is not None and measurement.latency_ms[tier.name] > 0:
            noise += (interval[1] - interval[0]) / measurement.latency_ms[tier.name]
    return noise


def _explain_regression(old: Measurement, new: Measurement) -> str:
    """Return the operators that became slower, or else the changes in the number of operators of each kind."""
    before, now = old.operators_by_tier, new.operators_by_tier
    tier = next((tier for tier in before if tier in now), None)
    if tier is not None:
        return explain_slowdown(before[tier], now[tier])
    kinds = operator_count_changes(old.kinds, new.kinds) if old.kinds else ""
    return kinds or "to see which operators, bench both per operator: edgekit bench --per-op"


def _verdict(
    measurement: Measurement,
    rule: str,
    before: float,
    now: Mapping[str, float],
    allowed: float,
    origin: str,
    explanation: str,
) -> Verdict:
    figure, limit = now.get(rule), before * (1 + allowed)
    passed = figure is not None and figure <= limit
    detail = "the baseline has a value, but this bench has none" if figure is None else ""
    if figure is not None and not passed and rule != "size_bytes":
        detail = explanation
    return Verdict(
        measurement.model,
        measurement.kind,
        str(measurement.variant),
        rule,
        figure,
        limit,
        passed,
        f"{origin} ({format_rule(rule, before)} and {100 * allowed:g} %)",
        measurement.device,
        detail,
    )
