"""The table cells that several report formats show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.core.environment.project import SHIPPED_PREFIX
from edgekit.core.numerics.layerwise_diff import TensorDiff
from edgekit.core.numerics.metrics import TASK_METRICS, format_metric
from edgekit.core.numerics.output_comparison import Comparison
from edgekit.core.records.layer_errors import LayerErrors
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.regressions import MetricChange
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.validation import Validation
from edgekit.core.units import format_bytes, format_count, format_ms
from edgekit.core.values.budgets import Verdict, format_rule

NOTHING = "-"

ARTIFACT_HEADER = ("model", "variant", "size", "max err", "SQNR", "top-1", "metric", "drop", "check")
BENCH_HEADER = ("model", "variant", "host p50", "host p99", "analytic", "load", "memory")
LEFT = 2
"""How many columns of both hold names."""


def artifact_cells(row: ReportRow) -> tuple[str, ...]:
    """One artifact, in the order of ARTIFACT_HEADER."""
    manifest, validation = row.artifact.manifest, row.validation
    error = validation.worst("max_abs_error") if validation else None
    return (
        f"{manifest.model}/{manifest.source['kind']}",
        str(manifest.variant),
        format_bytes(manifest.size_bytes),
        NOTHING if error is None else f"{error:.1e}",
        _sqnr(row),
        *_task(row),
        "pass" if row.passed else "FAIL",
    )


def _sqnr(row: ReportRow) -> str:
    if row.validation is None or any(item.problem for item in row.validation.comparisons):
        return NOTHING
    values = [item.value("sqnr_db") for item in row.validation.comparisons]
    finite = [value for value in values if value is not None]
    return f"{min(finite):.0f} dB" if finite else "exact"


def _task(row: ReportRow) -> tuple[str, str, str]:
    """Agreement, metric and drop on the test set."""
    drift = row.validation.drift if row.validation else None
    if drift is None:
        return NOTHING, NOTHING, NOTHING
    agreement = NOTHING if drift.top1_agreement is None else f"{100 * drift.top1_agreement:.1f}%"
    if TASK_METRICS[drift.metric].is_share:
        return agreement, f"{100 * drift.artifact:.2f}%", f"{100 * drift.drop:+.2f}"
    return agreement, f"{drift.artifact:.4f}", f"{drift.drop:+.4f}"


def bench_cells(item: Measurement) -> tuple[str, ...]:
    """One bench, in the order of BENCH_HEADER; each latency stands under its tier."""
    bound = item.latency_ms.get("analytic")
    memory = item.host_peak_memory_bytes
    return (
        f"{item.model}/{item.kind}",
        str(item.variant),
        format_ms(item.wall.p50_ms),
        format_ms(item.wall.p99_ms),
        NOTHING if bound is None else format_ms(bound),
        format_ms(item.load_ms),
        NOTHING if memory is None else format_bytes(memory),
    )


EMULATED_HEADER = ("model", "variant", "emulated", "within", "instructions", "lines", "memory")
"""Counts are of one inference; `lines` of 64 bytes come from memory: the misses of the core's last cache.
`memory` is the peak of the emulated process's data."""


def emulated_cells(item: Measurement) -> tuple[str, ...] | None:
    """The emulated tier of one bench, in the order of EMULATED_HEADER; None where there is none."""
    found = item.emulated
    if found is None:
        return None
    counts = found.counts
    known = found.low_ms is not None and found.high_ms is not None
    return (
        f"{item.model}/{item.kind}",
        str(item.variant),
        format_ms(found.latency_ms),
        f"{format_ms(found.low_ms or 0)} .. {format_ms(found.high_ms or 0)}" if known else found.calibration,
        format_count(counts.instructions),
        NOTHING if counts.l1_misses is None else format_count(counts.memory_misses),
        NOTHING if found.peak_memory_bytes is None else format_bytes(found.peak_memory_bytes),
    )


def emulated_note(items: Iterable[Measurement]) -> str:
    """How the emulated figures came about, in a line for each cost model."""
    found = dict.fromkeys(
        (item.emulated.cpu, item.emulated.threads, item.emulated.calibration)
        for item in items
        if item.emulated is not None
    )
    return "\n".join(
        f"emulated: counted on one thread of QEMU's {cpu}, predicted for {threads}; {calibration}"
        for cpu, threads, calibration in found
    )


OPERATORS_HEADER = ("", "operator", "output", "latency", "share", "instructions", "lines")
OPERATORS_LEFT = 3
_DEAREST, _NAME_WIDTH = 15, 28


def operator_rows(items: Sequence[OperatorCost]) -> list[tuple[str, ...]]:
    """The dearest operators in the order of OPERATORS_HEADER, numbered in the order of computation; the rest in one."""
    ranked = sorted(enumerate(items, 1), key=lambda item: -item[1].latency_ms)
    total = sum(item.latency_ms for item in items)
    kept, rest = ranked[:_DEAREST], [item for _, item in ranked[_DEAREST:]]
    rows = [operator_cells(str(number), item, total) for number, item in sorted(kept)]
    if rest:
        counted = [item.instructions for item in rest if item.instructions is not None]
        instructions = sum(counted) if len(counted) == len(rest) else None
        others = OperatorCost(f"{len(rest)} others", "", sum(item.latency_ms for item in rest), instructions)
        rows.append(operator_cells("", others, total))
    return rows


def operator_cells(number: str, item: OperatorCost, total_ms: float) -> tuple[str, ...]:
    """One operator in the order of OPERATORS_HEADER."""
    name = item.name if len(item.name) <= _NAME_WIDTH else f"…{item.name[1 - _NAME_WIDTH :]}"
    return (
        number,
        item.kind,
        name,
        format_ms(item.latency_ms),
        f"{100 * item.latency_ms / total_ms:.1f} %" if total_ms else NOTHING,
        NOTHING if item.instructions is None else format_count(item.instructions),
        NOTHING if item.memory_misses is None else format_count(item.memory_misses),
    )


VALIDATED_HEADER = ("model", "variant", "on", "to source", "to host", "verdict")
VALIDATED_LEFT = 3


def validated_cells(item: Validation) -> tuple[str, ...]:
    """One validation on a device's emulated core, in the order of VALIDATED_HEADER; errors are the largest ones."""
    return (
        f"{item.model}/{item.kind}",
        str(item.variant),
        str(item.device),
        *(_largest(compared) for compared in (item.comparisons, item.against_host)),
        equality(item),
    )


def _largest(compared: Sequence[Comparison]) -> str:
    values = [value for item in compared if (value := item.value("max_abs_error")) is not None]
    return f"{max(values):.1e}" if values else NOTHING


def equality(item: Validation) -> str:
    """The verdict on a validation in words."""
    return "equal" if item.passed else "NOT EQUAL"


CHANGE_HEADER = ("model", "variant", "device", "figure", "before", "now", "change", "verdict", "note")
CHANGE_LEFT = 4


def change_cells(item: MetricChange) -> tuple[str, ...]:
    """One change, in the order of CHANGE_HEADER."""
    before, after = (NOTHING if value is None else _changed(item, value) for value in (item.before, item.after))
    return (
        f"{item.model}/{item.kind}",
        item.variant,
        item.device or NOTHING,
        item.metric or _figure(item.rule),
        before,
        after,
        _by_how_much(item),
        item.word,
        item.note,
    )


def _figure(rule: str) -> str:
    """A rule as one says it: `latency_ms.host` is the host latency."""
    if rule.startswith("latency_ms."):
        return f"{rule.removeprefix('latency_ms.')} latency"
    return rule.replace("verdict:", "rule ").removesuffix("_bytes").replace("_", " ")


def _changed(item: MetricChange, value: float) -> str:
    if item.rule.startswith("verdict:"):
        return "passed" if value else "FAILED"
    if item.metric is not None:
        return format_metric(item.metric, value)
    return format_rule(item.rule, value)


def _by_how_much(item: MetricChange) -> str:
    if item.before is None or item.after is None or item.rule.startswith("verdict:") or item.note:
        return NOTHING
    if item.metric is not None:
        share = TASK_METRICS[item.metric].is_share
        return f"{100 * (item.after - item.before):+.2f}" if share else f"{item.after - item.before:+.4f}"
    return NOTHING if item.relative is None else f"{100 * item.relative:+.1f} %"


LAYERS_HEADER = ("model", "variant", "against", "lowest SQNR", "of", "leaps at")
LAYERS_LEFT = 3


def layer_cells(item: TensorDiff) -> tuple[str, str, str]:
    """SQNR, cosine and largest error."""
    return sqnr_text(item), f"{item.cosine:.5f}", f"{item.max_abs_error:.2g}"


def sqnr_text(item: TensorDiff) -> str:
    """`43.3 dB`, or `exact`."""
    return "exact" if item.sqnr_db is None else f"{item.sqnr_db:.1f} dB"


def summary_cells(layers: LayerErrors) -> tuple[str, ...]:
    """All layers in one line, in the order of LAYERS_HEADER."""
    first, worst = layers.first, layers.worst
    return (
        f"{layers.model}/{layers.kind}",
        str(layers.variant),
        layers.reference,
        "exact" if worst is None else f"{sqnr_text(worst)} at {worst.reference}",
        f"{len(layers.tensors)} layers",
        NOTHING if first is None else first.reference,
    )


def benches_by_device(report: Report) -> dict[str, list[Measurement]]:
    """Device -> its benches, in the order of the rows."""
    found: dict[str, list[Measurement]] = {}
    for item in (item for row in report.rows for item in row.measurements):
        found.setdefault(item.device, []).append(item)
    return dict(sorted(found.items()))


def limit_file(verdict: Verdict) -> str | None:
    """The project's file that set the limit; None where that is the command line, or came with edgekit."""
    origin = verdict.origin
    return origin if origin.endswith(".toml") and not origin.startswith(("/", SHIPPED_PREFIX)) else None


def tier_note(host: str) -> str:
    """What the tiers in a bench table are, in lines of at most 100 columns."""
    return f"host: measured on {host[:80]}\nanalytic: the device's roofline, rough, not a prediction"


def conclusion(report: Report) -> str:
    """One sentence."""
    failed = len(report.failed)
    return f"{report.verdict_count} rules judged on {len(report.rows)} artifacts: " + (
        "all passed" if not failed else f"{failed} FAILED"
    )
