"""Two runs side by side: what became larger, slower, less accurate, what is new and what is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.records.measurement import Measurement
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
from edgekit.stages.gates.baseline import figures_of
from edgekit.stages.selection import Selection

_METRIC_NOISE = 1e-6

_Key = tuple[str, str, str]
_DEFAULT = RegressionThresholds()


def compare_reports(old: Report, new: Report, names: tuple[str, str], allowance: RegressionThresholds) -> ChangeReport:
    """Every figure that either run has. `names` are what the runs are called.

    Raises InputError when they have no artifact in common.
    """
    before, after = ({_key(row): row for row in report.rows} for report in (old, new))
    if not before.keys() & after.keys():
        raise InputError(f"{names[0]} and {names[1]} have no artifact in common: there is nothing to compare")
    items: list[MetricChange] = []
    for key in sorted(before.keys() | after.keys()):
        if key in before and key in after:
            items += _both(before[key], after[key], allowance)
        else:
            items.append(_one_sided(key, "artifact", None, is_new=key in after))
    return ChangeReport(*names, tuple(items))


def compare_with_baseline(
    report: Report,
    baseline: Report,
    name: str,
    selection: Selection,
    devices: Collection[str] = (),
    allowance: RegressionThresholds = _DEFAULT,
) -> Report:
    """The report with what changed since the baseline; of that, what the selection and the devices are about.

    Raises InputError when they have no artifact in common.
    """
    models = {row.artifact.manifest.model for row in report.rows} if selection.names else None
    kept = [
        _only(row, devices)
        for row in baseline.rows
        if selection.covers(row.artifact) and (models is None or row.artifact.manifest.model in models)
    ]
    now = replace(report, rows=tuple(_only(row, devices) for row in report.rows))
    changes = compare_reports(replace(baseline, rows=tuple(kept)), now, (name, "this run"), allowance)
    return replace(report, changes=changes)


def _only(row: ReportRow, devices: Collection[str]) -> ReportRow:
    if not devices:
        return row
    benches = tuple(item for item in row.measurements if item.device in devices)
    verdicts = tuple(verdict for verdict in row.verdicts if verdict.device is None or verdict.device in devices)
    emulated = tuple(item for item in row.emulated if item.device in devices)
    return replace(row, measurements=benches, verdicts=verdicts, emulated=emulated)


def _key(row: ReportRow) -> _Key:
    manifest = row.artifact.manifest
    return manifest.model, manifest.source["kind"], str(manifest.variant)


def _one_sided(key: _Key, rule: str, device: str | None, *, is_new: bool) -> MetricChange:
    return MetricChange(*key, rule, None, None, NEW if is_new else REMOVED, device)


def _both(old: ReportRow, new: ReportRow, allowance: RegressionThresholds) -> Iterator[MetricChange]:
    key = _key(new)
    sizes = [float(row.artifact.manifest.size_bytes) for row in (old, new)]
    yield _figure(key, "size_bytes", sizes[0], sizes[1], None, allowance)
    yield from _metric(key, old, new, allowance)
    before, after = ({item.device: item for item in row.measurements} for row in (old, new))
    for device in sorted(before.keys() | after.keys()):
        if device in before and device in after:
            yield from _bench(key, before[device], after[device], allowance)
        else:
            yield _one_sided(key, "bench", device, is_new=device in after)
    yield from _verdicts(key, old, new)


def _figure(
    key: _Key, rule: str, before: float, after: float, device: str | None, allowance: RegressionThresholds
) -> MetricChange:
    allowed = abs(before) * allowance.of(rule)
    tier = tier_of_rule(rule)
    noise = allowed if not is_repeatable(rule) else abs(before) * tier.noise if tier is not None else 0.0
    return MetricChange(*key, rule, before, after, classify_change(before, after, allowed, noise), device)


def _metric(key: _Key, old: ReportRow, new: ReportRow, allowance: RegressionThresholds) -> Iterator[MetricChange]:
    """The task metric of the artifact, where both runs judged it on as many samples."""
    before, after = (_drift(row) for row in (old, new))
    if before is None and after is None:
        return
    if before is None or after is None:
        yield _one_sided(key, "metric", None, is_new=before is None)
        return
    change = MetricChange(*key, "metric", before.artifact, after.artifact, INCOMPARABLE, metric=after.metric)
    if before.metric != after.metric:
        yield replace(change, before=None, note=f"judged by {before.metric} before, by {after.metric} now")
    elif before.samples != after.samples:
        yield replace(change, note=f"judged on {before.samples} test samples before, on {after.samples} now")
    else:
        loss = TASK_METRICS[after.metric].drop(before.artifact, after.artifact)
        yield replace(change, state=classify_change(0.0, loss, allowance.metric, _METRIC_NOISE))


def _drift(row: ReportRow) -> Drift | None:
    return row.validation.drift if row.validation else None


def _bench(key: _Key, old: Measurement, new: Measurement, allowance: RegressionThresholds) -> Iterator[MetricChange]:
    known, now = _measured(old), _measured(new)
    for rule in sorted(known.keys() | now.keys()):
        before, after = known.get(rule), now.get(rule)
        if before is None or after is None:
            yield _one_sided(key, rule, new.device, is_new=before is None)
            continue
        reason = _incomparable(rule, old, new)
        if reason:
            yield MetricChange(*key, rule, before, after, INCOMPARABLE, new.device, note=reason)
        else:
            yield _figure(key, rule, before, after, new.device, allowance)


def _measured(item: Measurement) -> dict[str, float]:
    """What a bench adds to the artifact's size."""
    found = {rule: value for rule, value in figures_of(item).items() if rule != "size_bytes"}
    memory = item.host_peak_memory_bytes
    return found if memory is None else {**found, "peak_memory_bytes": float(memory)}


def _incomparable(rule: str, old: Measurement, new: Measurement) -> str:
    """Why the two figures are not about the same; empty when they are."""
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


def _verdicts(key: _Key, old: ReportRow, new: ReportRow) -> Iterator[MetricChange]:
    """Rules that were judged otherwise; that a rule came or went is no change of the artifact."""
    before, after = ({(item.rule, item.device): item.passed for item in row.verdicts} for row in (old, new))
    for rule, device in after:
        was, passed = before.get((rule, device)), after[rule, device]
        if was is not None and was != passed:
            state = BETTER if passed else WORSE
            yield MetricChange(*key, f"verdict:{rule}", float(was), float(passed), state, device)
