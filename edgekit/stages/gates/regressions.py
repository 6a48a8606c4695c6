"""Compares two reports: which artifacts became larger, slower or less accurate, and which were added or removed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.records.measurement import Execution, Measurement
from edgekit.core.records.regressions import (
    BETTER,
    INCOMPARABLE,
    NEW,
    REMOVED,
    WORSE,
    ChangeReport,
    MetricChange,
    RegressionThresholds,
    classify_change,
)
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.validation import Drift
from edgekit.core.values.tiers import is_repeatable, tier_of_rule
from edgekit.stages.gates.baseline import DEVICE_RULE, comparable_figures, interval_noise
from edgekit.stages.selection import Selection

# Below this, a change of the task metric counts as floating-point rounding.
_METRIC_NOISE = 1e-6

_Key = tuple[str, str, str]
_DEFAULT = RegressionThresholds()


def compare_reports(old: Report, new: Report, names: tuple[str, str], thresholds: RegressionThresholds) -> ChangeReport:
    """Compare two reports.

    Args:
        old: The earlier report.
        new: The later report.
        names: The names of the reports, for messages.
        thresholds: How much worse a value may be.

    Returns:
        One change for each value that either report has.

    Raises:
        InputError: The reports have no artifact in common.
    """
    before, after = ({_key(row): row for row in report.rows} for report in (old, new))
    if not before.keys() & after.keys():
        raise InputError(f"{names[0]} and {names[1]} have no artifact in common")
    changes: list[MetricChange] = []
    for key in sorted(before.keys() | after.keys()):
        if key in before and key in after:
            changes += _compare_rows(before[key], after[key], thresholds)
        else:
            changes.append(_one_sided(key, "artifact", None, is_new=key in after))
    return ChangeReport(*names, tuple(changes))


def compare_with_baseline(
    report: Report,
    baseline: Report,
    name: str,
    selection: Selection,
    devices: Collection[str] = (),
    thresholds: RegressionThresholds = _DEFAULT,
) -> Report:
    """Add the changes since a baseline to a report.

    Args:
        report: The current report.
        baseline: The earlier report; its rows outside the selection are ignored.
        name: The name of the baseline, for messages.
        selection: The selection that the current report was made from.
        devices: The devices to compare; empty for all.
        thresholds: How much worse a value may be.

    Returns:
        The current report with its changes.

    Raises:
        InputError: The reports have no artifact in common.
    """
    models = {row.artifact.manifest.model for row in report.rows} if selection.names else None
    kept = [
        _filter_devices(row, devices)
        for row in baseline.rows
        if selection.covers(row.artifact) and (models is None or row.artifact.manifest.model in models)
    ]
    now = replace(report, rows=tuple(_filter_devices(row, devices) for row in report.rows))
    changes = compare_reports(replace(baseline, rows=tuple(kept)), now, (name, "this run"), thresholds)
    return replace(report, changes=changes)


def _filter_devices(row: ReportRow, devices: Collection[str]) -> ReportRow:
    if not devices:
        return row
    measurements = tuple(measurement for measurement in row.measurements if measurement.device in devices)
    verdicts = tuple(verdict for verdict in row.verdicts if verdict.device is None or verdict.device in devices)
    emulated = tuple(validation for validation in row.emulated if validation.device in devices)
    return replace(row, measurements=measurements, verdicts=verdicts, emulated=emulated)


def _key(row: ReportRow) -> _Key:
    manifest = row.artifact.manifest
    return manifest.model, manifest.source["kind"], str(manifest.variant)


def _one_sided(key: _Key, rule: str, device: str | None, *, is_new: bool) -> MetricChange:
    return MetricChange(*key, rule, None, None, NEW if is_new else REMOVED, device)


def _compare_rows(old: ReportRow, new: ReportRow, thresholds: RegressionThresholds) -> Iterator[MetricChange]:
    key = _key(new)
    sizes = [float(row.artifact.manifest.size_bytes) for row in (old, new)]
    yield _compare_figure(key, "size_bytes", sizes[0], sizes[1], None, thresholds)
    yield from _compare_metric(key, old, new, thresholds)
    before, after = ({(entry.device, entry.runtime): entry for entry in row.measurements} for row in (old, new))
    for place in sorted(before.keys() | after.keys()):
        device, _ = place
        if place in before and place in after:
            yield from _compare_measurements(key, before[place], after[place], thresholds)
        else:
            yield _one_sided(key, "bench", device, is_new=place in after)
    yield from _compare_verdicts(key, old, new)


def _compare_figure(
    key: _Key,
    rule: str,
    before: float,
    after: float,
    device: str | None,
    thresholds: RegressionThresholds,
    noise_share: float = 0.0,
) -> MetricChange:
    allowed = abs(before) * (thresholds.of(rule) + noise_share)
    tier = tier_of_rule(rule)
    noise = allowed if not is_repeatable(rule) else abs(before) * tier.noise if tier is not None else 0.0
    return MetricChange(*key, rule, before, after, classify_change(before, after, allowed, noise), device)


def _compare_metric(
    key: _Key, old: ReportRow, new: ReportRow, thresholds: RegressionThresholds
) -> Iterator[MetricChange]:
    """Compare the task metric; it is comparable only if both runs used the same metric on as many samples."""
    before, after = (_drift(row) for row in (old, new))
    if before is None and after is None:
        return
    if before is None or after is None:
        yield _one_sided(key, "metric", None, is_new=before is None)
        return
    change = MetricChange(*key, "metric", before.artifact, after.artifact, INCOMPARABLE, metric=after.metric)
    if before.metric != after.metric:
        yield replace(change, before=None, note=f"measured by {before.metric} before, by {after.metric} now")
    elif before.samples != after.samples:
        yield replace(change, note=f"measured on {before.samples} test samples before, on {after.samples} now")
    else:
        loss = TASK_METRICS[after.metric].drop(before.artifact, after.artifact)
        yield replace(change, state=classify_change(0.0, loss, thresholds.metric, _METRIC_NOISE))


def _drift(row: ReportRow) -> Drift | None:
    return row.validation.drift if row.validation else None


def _compare_measurements(
    key: _Key, old: Measurement, new: Measurement, thresholds: RegressionThresholds
) -> Iterator[MetricChange]:
    old_figures, new_figures = _measured_figures(old), _measured_figures(new)
    for rule in sorted(old_figures.keys() | new_figures.keys()):
        before, after = old_figures.get(rule), new_figures.get(rule)
        if before is None or after is None:
            yield _one_sided(key, rule, new.device, is_new=before is None)
            continue
        reason = _incomparable_reason(rule, old, new)
        if reason:
            yield MetricChange(*key, rule, before, after, INCOMPARABLE, new.device, note=reason)
        else:
            noise = interval_noise(rule, old, new)
            yield _compare_figure(key, rule, before, after, new.device, thresholds, noise)


def _measured_figures(measurement: Measurement) -> dict[str, float]:
    """Return latency, instructions and peak memory by rule."""
    figures = {rule: value for rule, value in comparable_figures(measurement).items() if rule != "size_bytes"}
    memory = measurement.host_peak_memory_bytes
    return figures if memory is None else {**figures, "peak_memory_bytes": float(memory)}


def _incomparable_reason(rule: str, old: Measurement, new: Measurement) -> str:
    """Return why two values cannot be compared; empty if they can."""
    if rule == DEVICE_RULE:
        return _other_board(old.execution("device"), new.execution("device"))
    if not is_repeatable(rule):
        if old.host != new.host:
            return f"measured on {old.host} before, on {new.host} now"
        return "" if old.threads == new.threads else f"with {old.threads} threads before, with {new.threads} now"
    tier = tier_of_rule(rule)
    if tier is not None and tier.name == "emulated" and old.emulated is not None and new.emulated is not None:
        if old.emulated.cpu != new.emulated.cpu:
            return f"counted on {old.emulated.cpu} before, on {new.emulated.cpu} now"
        if rule == "latency_ms.emulated" and old.emulated.threads != new.emulated.threads:
            return f"predicted for {old.emulated.threads} threads before, for {new.emulated.threads} now"
        if rule == "latency_ms.emulated" and old.emulated.calibration != new.emulated.calibration:
            return f"predicted by another cost model: {old.emulated.calibration} before, {new.emulated.calibration} now"
    return ""


def _other_board(old: Execution | None, new: Execution | None) -> str:
    """Return why latencies of a device cannot be compared; empty if they can."""
    if old is None or new is None:
        return ""
    if old.description != new.description:
        return f"measured on {old.description} before, on {new.description} now"
    return "" if old.threads == new.threads else f"with {old.threads} threads before, with {new.threads} now"


def _compare_verdicts(key: _Key, old: ReportRow, new: ReportRow) -> Iterator[MetricChange]:
    """Compare the rules that both runs judged; an added or removed rule does not change the artifact."""
    before, after = ({(verdict.rule, verdict.device): verdict.passed for verdict in row.verdicts} for row in (old, new))
    for rule, device in after:
        passed_before, passed = before.get((rule, device)), after[rule, device]
        if passed_before is not None and passed_before != passed:
            state = BETTER if passed else WORSE
            yield MetricChange(*key, f"verdict:{rule}", float(passed_before), float(passed), state, device)
