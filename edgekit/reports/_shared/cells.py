"""The table cells that several report formats show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.core.environment.project import SHIPPED_PREFIX
from edgekit.core.escape import visible
from edgekit.core.numerics.layerwise_diff import TensorDiff
from edgekit.core.numerics.metrics import TASK_METRICS, format_metric
from edgekit.core.numerics.output_comparison import Comparison
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.layer_errors import LayerErrors
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost, pair_operators
from edgekit.core.records.regressions import MetricChange
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.runtime_versions import RuntimeVersions
from edgekit.core.records.validation import Validation
from edgekit.core.units import format_bytes, format_count, format_ms
from edgekit.core.values.budgets import Verdict, format_rule
from edgekit.core.values.synthetic_samples import SYNTHETIC_WORTH
from edgekit.core.values.tiers import find_tier

# The text of a cell without a figure.
NOTHING = "-"

ARTIFACT_HEADER = ("model", "variant", "size", "max err", "SQNR", "top-1", "metric", "drop", "check")
BENCH_HEADER = ("model", "variant", "host p50", "host p99", "analytic", "load", "memory")
# The leading columns of both tables that hold names; the others hold figures.
LEFT = 2


def artifact_cells(row: ReportRow) -> tuple[str, ...]:
    """Return the cells of an artifact, in the order of ARTIFACT_HEADER."""
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
    if row.validation is None or any(comparison.problem for comparison in row.validation.comparisons):
        return NOTHING
    values = [comparison.value("sqnr_db") for comparison in row.validation.comparisons]
    finite = [value for value in values if value is not None]
    return f"{min(finite):.0f} dB" if finite else "exact"


def _task(row: ReportRow) -> tuple[str, str, str]:
    """Return agreement, metric and drop on the test set."""
    drift = row.validation.drift if row.validation else None
    if drift is None:
        return NOTHING, NOTHING, NOTHING
    agreement = NOTHING if drift.top1_agreement is None else f"{100 * drift.top1_agreement:.1f}%"
    if TASK_METRICS[drift.metric].is_share:
        return agreement, f"{100 * drift.artifact:.2f}%", f"{100 * drift.drop:+.2f}"
    return agreement, f"{drift.artifact:.4f}", f"{drift.drop:+.4f}"


def synthetic_note(report: Report) -> str:
    """Return which artifacts rest on samples that were synthesized from their networks, a line for each use."""
    labels: dict[str, list[str]] = {}
    for row in report.rows:
        if row.artifact.manifest.synthetic:
            labels.setdefault(row.artifact.manifest.synthetic, []).append(row.artifact.label)
    return "\n".join(
        visible(f"{use} on synthetic samples ({SYNTHETIC_WORTH}): {', '.join(artifacts)}")
        for use, artifacts in labels.items()
    )


def bench_cells(bench: Measurement) -> tuple[str, ...]:
    """Return the cells of a bench, in the order of BENCH_HEADER; each latency is in the column of its tier."""
    bound = bench.latency_ms.get("analytic")
    memory = bench.host_peak_memory_bytes
    return (
        f"{bench.model}/{bench.kind}",
        str(bench.variant),
        format_ms(bench.wall.p50_ms),
        format_ms(bench.wall.p99_ms),
        NOTHING if bound is None else format_ms(bound),
        format_ms(bench.load_ms),
        NOTHING if memory is None else format_bytes(memory),
    )


# Counts are per inference. Cache misses are those of the core's last level: lines of 64 bytes that come from memory.
# Memory is the peak of the emulated process's data.
EMULATED_HEADER = ("model", "variant", "emulated", "interval", "instructions", "cache misses", "memory")


def emulated_cells(bench: Measurement) -> tuple[str, ...] | None:
    """Return the cells of a bench's emulated tier, in the order of EMULATED_HEADER; None if the bench has none."""
    emulated = bench.emulated
    if emulated is None:
        return None
    counts = emulated.counts
    calibrated = emulated.low_ms is not None and emulated.high_ms is not None
    interval = f"{format_ms(emulated.low_ms or 0)} .. {format_ms(emulated.high_ms or 0)}"
    return (
        f"{bench.model}/{bench.kind}",
        str(bench.variant),
        format_ms(emulated.latency_ms),
        interval if calibrated else emulated.calibration,
        format_count(counts.instructions),
        NOTHING if counts.l1_misses is None else format_count(counts.memory_misses),
        NOTHING if emulated.peak_memory_bytes is None else format_bytes(emulated.peak_memory_bytes),
    )


# Of the board itself, and what was predicted for it. Memory is the peak while the model runs.
DEVICE_HEADER = ("model", "variant", "device p50", "p99", "interval", "load", "memory", "predicted")


def device_cells(bench: Measurement) -> tuple[str, ...] | None:
    """Return the cells of what was measured on the device, in the order of DEVICE_HEADER; None if nothing was."""
    execution = bench.execution("device")
    if execution is None:
        return None
    interval = bench.interval_ms("device")
    return (
        f"{bench.model}/{bench.kind}",
        str(bench.variant),
        format_ms(execution.latency_ms),
        NOTHING if execution.wall is None else format_ms(execution.wall.p99_ms),
        NOTHING if interval is None else " .. ".join(map(format_ms, interval)),
        NOTHING if execution.load_ms is None else format_ms(execution.load_ms),
        NOTHING if execution.peak_memory_bytes is None else format_bytes(execution.peak_memory_bytes),
        predicted(bench, execution.latency_ms),
    )


# Of what ran in a browser. The transfer is that of the runtime and the model, as a visitor's browser fetches them.
BROWSER_HEADER = ("model", "variant", "browser p90", "runtime load", "transfer", "gzip", "brotli", "several threads")


def browser_cells(bench: Measurement) -> tuple[str, ...] | None:
    """Return the cells of what ran in a browser, in the order of BROWSER_HEADER; None if nothing did."""
    execution = bench.execution("device")
    if execution is None or execution.browser is None:
        return None
    figures = execution.browser
    return (
        f"{bench.model}/{bench.kind}",
        str(bench.variant),
        NOTHING if execution.wall is None else format_ms(execution.wall.p90_ms),
        format_ms(figures.runtime_load_ms),
        *map(
            format_bytes,
            (figures.transfer.raw_bytes, figures.transfer.gzip_bytes, figures.transfer.brotli_bytes),
        ),
        ", ".join(f"{format_ms(run.wall.p50_ms)} ({run.threads})" for run in figures.threaded) or NOTHING,
    )


def predicted(bench: Measurement, measured_ms: float) -> str:
    """Return the emulated prediction, and how far it is from what was measured: `5.2 ms (+6 %)`."""
    prediction_ms = bench.latency_ms.get("emulated")
    if prediction_ms is None:
        return NOTHING
    return f"{format_ms(prediction_ms)} ({100 * (prediction_ms / measured_ms - 1):+.0f} %)"


def device_note(benches: Iterable[Measurement]) -> str:
    """Return what the device is and how it was doing, one line for each remark and the artifacts that it is about."""
    lines: dict[str, None] = {}
    for bench in benches:
        execution = bench.execution("device")
        if execution is not None:
            threads = "1 thread" if execution.threads == 1 else f"{execution.threads} threads"
            lines[visible(f"device: measured on {execution.description}, {threads}, by {execution.executor}")] = None
    for bench in benches:
        execution = bench.execution("device")
        if execution is not None and execution.notes:
            lines[visible(f"device: {bench.model}/{bench.kind} {bench.variant}: {', '.join(execution.notes)}")] = None
    return "\n".join(lines)


def emulated_note(benches: Iterable[Measurement]) -> str:
    """Return how the emulated figures were obtained, and which networks are unlike those that were fitted.

    There is one line for each core, number of threads and cost model, and one for each such network.
    """
    benches = tuple(benches)
    methods = dict.fromkeys(
        (bench.emulated.cpu, bench.emulated.threads, bench.emulated.calibration)
        for bench in benches
        if bench.emulated is not None
    )
    lines = [
        f"emulated: counted on one thread of QEMU's {cpu}, predicted for {threads}; {calibration}"
        for cpu, threads, calibration in methods
    ]
    lines += [
        f"{bench.model}/{bench.kind} {bench.variant} is unlike the fitted networks: {', '.join(bench.emulated.unlike)}"
        for bench in benches
        if bench.emulated is not None and bench.emulated.unlike
    ]
    return "\n".join(map(visible, lines))


OPERATORS_HEADER = ("", "operator", "output", "latency", "share", "instructions", "cache misses")
OPERATORS_LEFT = 3
# With 15 operators a table fits one screen; with names of 28 characters it fits 100 columns.
_SLOWEST, _NAME_WIDTH = 15, 28


RUNTIME_VERSIONS_HEADER = ("model", "variant", "version", "instructions", "change", "cache misses", "latency")
RUNTIME_VERSIONS_LEFT = 3


def runtime_version_rows(artifact: Artifact, record: RuntimeVersions) -> list[tuple[str, ...]]:
    """Return a row for each version of the runtime, compared with the first.

    Args:
        artifact: The artifact.
        record: The counts under each version.

    Returns:
        Rows in the order of RUNTIME_VERSIONS_HEADER.
    """
    return [
        (
            f"{artifact.manifest.model}/{artifact.manifest.source['kind']}",
            str(artifact.manifest.variant),
            version.requirement,
            f"{version.instructions:,.0f}",
            NOTHING if version is record.versions[0] else f"{100 * record.growth(version):+.2f} %",
            format_count(version.emulated.counts.memory_misses),
            format_ms(version.emulated.latency_ms),
        )
        for version in record.versions
    ]


def operator_change_rows(record: RuntimeVersions, index: int) -> list[tuple[str, ...]]:
    """Return the operators whose instructions change most between the first version and another one.

    Args:
        record: The counts under each version.
        index: The place of the other version.

    Returns:
        Rows with the operator, its instructions under both versions, and the change; empty without --per-op.
    """
    before, now = record.versions[0].emulated.operators, record.versions[index].emulated.operators
    changes = [
        (old.title if old else new.title, old.instructions if old else 0.0, new.instructions)
        for old, new in pair_operators(before, now)
        if new.instructions is not None and (old is None or old.instructions is not None)
    ]
    ranked = sorted(changes, key=lambda change: -abs((change[2] or 0.0) - (change[1] or 0.0)))
    return [
        (title, f"{old or 0.0:,.0f}", f"{new or 0.0:,.0f}", f"{(new or 0.0) - (old or 0.0):+,.0f}")
        for title, old, new in ranked[:_SLOWEST]
    ]


def operator_rows(operators: Sequence[OperatorCost]) -> list[tuple[str, ...]]:
    """Return the slowest operators in the order of computation, and all others summed up in a last row.

    Args:
        operators: The operators of one artifact in one tier, in the order of computation.

    Returns:
        Rows in the order of OPERATORS_HEADER.
    """
    ranked = sorted(enumerate(operators, 1), key=lambda numbered: -numbered[1].latency_ms)
    total = sum(operator.latency_ms for operator in operators)
    slowest, rest = ranked[:_SLOWEST], [operator for _, operator in ranked[_SLOWEST:]]
    rows = [operator_cells(str(number), operator, total) for number, operator in sorted(slowest)]
    if rest:
        counted = [operator.instructions for operator in rest if operator.instructions is not None]
        instructions = sum(counted) if len(counted) == len(rest) else None
        others = OperatorCost(f"{len(rest)} others", "", sum(operator.latency_ms for operator in rest), instructions)
        rows.append(operator_cells("", others, total))
    return rows


def operator_cells(number: str, operator: OperatorCost, total_ms: float) -> tuple[str, ...]:
    """Return the cells of an operator, in the order of OPERATORS_HEADER.

    Args:
        number: The operator's place in the order of computation.
        operator: The operator.
        total_ms: The latency of all operators of the artifact, of which the cell `share` is a part.
    """
    name = operator.name if len(operator.name) <= _NAME_WIDTH else f"…{operator.name[1 - _NAME_WIDTH :]}"
    return (
        number,
        operator.kind,
        name,
        format_ms(operator.latency_ms),
        f"{100 * operator.latency_ms / total_ms:.1f} %" if total_ms else NOTHING,
        NOTHING if operator.instructions is None else format_count(operator.instructions),
        NOTHING if operator.memory_misses is None else format_count(operator.memory_misses),
    )


VALIDATED_HEADER = ("model", "variant", "device", "error to source", "error to host", "verdict")
VALIDATED_LEFT = 3


def validated_cells(validation: Validation) -> tuple[str, ...]:
    """Return the cells of a validation on a device's emulated core, in the order of VALIDATED_HEADER."""
    return (
        f"{validation.model}/{validation.kind}",
        str(validation.variant),
        str(validation.device),
        *(_largest_error(compared) for compared in (validation.comparisons, validation.against_host)),
        equality(validation),
    )


def _largest_error(comparisons: Sequence[Comparison]) -> str:
    errors = [error for comparison in comparisons if (error := comparison.value("max_abs_error")) is not None]
    return f"{max(errors):.1e}" if errors else NOTHING


def validated_title(validations: Iterable[Validation]) -> str:
    """Return the title of a table of validations elsewhere than on this host."""
    return "validation on devices" if any(item.executor for item in validations) else "validation on emulated cores"


def equality(validation: Validation) -> str:
    """Return `equal` or `NOT EQUAL`, the verdict on a validation on an emulated core."""
    return "equal" if validation.passed else "NOT EQUAL"


CHANGE_HEADER = ("model", "variant", "device", "figure", "before", "now", "change", "verdict", "note")
CHANGE_LEFT = 4


def change_cells(change: MetricChange) -> tuple[str, ...]:
    """Return the cells of a change, in the order of CHANGE_HEADER."""
    before, after = (NOTHING if value is None else _value(change, value) for value in (change.before, change.after))
    return (
        f"{change.model}/{change.kind}",
        change.variant,
        change.device or NOTHING,
        change.metric or _figure_name(change.rule),
        before,
        after,
        _difference(change),
        change.word,
        change.note,
    )


def _figure_name(rule: str) -> str:
    """Return the name of a rule's figure: `host latency` for `latency_ms.host`."""
    if rule.startswith("latency_ms."):
        return f"{rule.removeprefix('latency_ms.')} latency"
    return rule.replace("verdict:", "rule ").removesuffix("_bytes").replace("_", " ")


def _value(change: MetricChange, value: float) -> str:
    if change.rule.startswith("verdict:"):
        return "passed" if value else "FAILED"
    if change.metric is not None:
        return format_metric(change.metric, value)
    return format_rule(change.rule, value)


def _difference(change: MetricChange) -> str:
    if change.before is None or change.after is None or change.rule.startswith("verdict:") or change.note:
        return NOTHING
    if change.metric is not None:
        difference = change.after - change.before
        return f"{100 * difference:+.2f}" if TASK_METRICS[change.metric].is_share else f"{difference:+.4f}"
    return NOTHING if change.relative is None else f"{100 * change.relative:+.1f} %"


LAYERS_HEADER = ("model", "variant", "reference", "lowest SQNR", "compared", "divergence at")
LAYERS_LEFT = 3


def layer_cells(diff: TensorDiff) -> tuple[str, str, str]:
    """Return SQNR, cosine similarity and largest error of one layer's output."""
    return sqnr_text(diff), f"{diff.cosine:.5f}", f"{diff.max_abs_error:.2g}"


def sqnr_text(diff: TensorDiff) -> str:
    """Return the SQNR as `43.3 dB`, or `exact` where both tensors are equal."""
    return "exact" if diff.sqnr_db is None else f"{diff.sqnr_db:.1f} dB"


def summary_cells(layers: LayerErrors) -> tuple[str, ...]:
    """Return the summary of a layer-wise diff, in the order of LAYERS_HEADER."""
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
    """Return the benches of each device, devices sorted by name, benches in the order of the report's rows."""
    benches: dict[str, list[Measurement]] = {}
    for bench in (bench for row in report.rows for bench in row.measurements):
        benches.setdefault(bench.device, []).append(bench)
    return dict(sorted(benches.items()))


def limit_file(verdict: Verdict) -> str | None:
    """Return the project's file that sets the limit; None if the command line or a file of edgekit sets it."""
    origin = verdict.origin
    return origin if origin.endswith(".toml") and not origin.startswith(("/", SHIPPED_PREFIX)) else None


def tier_note(host: str) -> str:
    """Return what the tiers of a bench table mean, in lines of at most 100 columns."""
    # "host: measured on " takes 18 columns
    return f"host: measured on {visible(host)[:80]}\nanalytic: {find_tier('analytic').title}"


def conclusion(report: Report) -> str:
    """Return the number of rules, of artifacts and of failures in one sentence without a full stop."""
    failed = len(report.failed)
    return f"{report.verdict_count} rules judged on {len(report.rows)} artifacts: " + (
        "all passed" if not failed else f"{failed} FAILED"
    )
