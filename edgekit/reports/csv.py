"""CSV with one line per figure, unrounded, in bytes, milliseconds and the metric's own unit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from edgekit.contracts.report import ReportFormat
from edgekit.core.escape import csv_cell
from edgekit.core.numerics.output_comparison import Comparison
from edgekit.core.records.measurement import Execution, Measurement
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.validation import Validation

HEADER = (
    "model",
    "kind",
    "target",
    "precision",
    "variant",
    "output",
    "device",
    "tier",
    "figure",
    "value",
    "limit",
    "passed",
    "sha256",
)

_Line = dict[str, object]


def _validation_lines(validation: Validation) -> Iterator[_Line]:
    yield from _comparison_lines("", validation.comparisons)
    yield from _comparison_lines("stress_", validation.stress)
    drift = validation.drift
    if drift is not None:
        yield {"figure": f"{drift.metric}_source", "value": drift.source}
        yield {"figure": drift.metric, "value": drift.artifact}
        yield {"figure": "drop", "value": drift.drop}
        if drift.top1_agreement is not None:
            agreement: _Line = {"figure": "top1_agreement_test", "value": drift.top1_agreement}
            yield {**agreement, "limit": drift.min_top1_agreement, "passed": drift.passed}
        for drifted in drift.classes:
            yield {"figure": f"drop_class_{drifted.label}", "value": drifted.drop}


def _comparison_lines(prefix: str, comparisons: Sequence[Comparison]) -> Iterator[_Line]:
    for comparison in comparisons:
        for figure in comparison.figures:
            value = "inf" if figure.value is None else figure.value
            limit = {} if figure.limit is None else {"limit": figure.limit, "passed": figure.passed}
            yield {"output": comparison.output, "figure": f"{prefix}{figure.name}", "value": value, **limit}


def _emulated_lines(validation: Validation) -> Iterator[_Line]:
    """Yield the comparisons of a device's outputs with the source's, and with this host's (`to_host_`)."""
    place = {"device": validation.device, "tier": "device" if validation.executor else "emulated"}
    yield {**place, "figure": "equal", "value": int(validation.passed), "passed": validation.passed}
    for prefix, compared in (("", validation.comparisons), ("to_host_", validation.against_host)):
        for line in _comparison_lines(prefix, compared):
            yield {**place, **line}


def _bench_lines(bench: Measurement) -> Iterator[_Line]:
    for tier, value in sorted(bench.latency_ms.items()):
        yield {"device": bench.device, "tier": tier, "figure": "latency_ms", "value": value}
    if bench.emulated is not None:
        emulated = {"device": bench.device, "tier": "emulated"}
        interval = {"latency_low_ms": bench.emulated.low_ms, "latency_high_ms": bench.emulated.high_ms}
        for name, count in (*interval.items(), *asdict(bench.emulated.counts).items()):
            if count is not None:
                yield {**emulated, "figure": name, "value": count}
    for execution in bench.executions:
        yield from _execution_lines(bench.device, execution)
    host = {"device": bench.device, "tier": "host"}
    for name, value in asdict(bench.wall).items():
        yield {**host, "figure": f"wall_{name}", "value": value}
    yield {**host, "figure": "load_ms", "value": bench.load_ms}
    yield {**host, "figure": "first_inference_ms", "value": bench.first_inference_ms}
    for tier, memory in (("host", bench.host_peak_memory_bytes), ("emulated", bench.emulated_peak_memory_bytes)):
        if memory is not None:
            yield {**host, "tier": tier, "figure": "peak_memory_bytes", "value": memory}


def _execution_lines(device: str, execution: Execution) -> Iterator[_Line]:
    figures: dict[str, float | None] = {"latency_low_ms": execution.low_ms, "latency_high_ms": execution.high_ms}
    if execution.wall is not None:
        figures |= {f"wall_{name}": value for name, value in asdict(execution.wall).items()}
    figures |= {"load_ms": execution.load_ms, "peak_memory_bytes": execution.peak_memory_bytes}
    if execution.browser is not None:
        figures |= {f"transfer_{name}": value for name, value in asdict(execution.browser.transfer).items()}
        figures["runtime_load_ms"] = execution.browser.runtime_load_ms
    for name, value in figures.items():
        if value is not None:
            yield {"device": device, "tier": execution.tier, "figure": name, "value": value}


def _row_lines(row: ReportRow) -> Iterator[_Line]:
    manifest = row.artifact.manifest
    yield {"figure": "size_bytes", "value": manifest.size_bytes}
    if row.validation is not None:
        yield from _validation_lines(row.validation)
    for validation in row.emulated:
        yield from _emulated_lines(validation)
    for bench in row.measurements:
        yield from _bench_lines(bench)
    for verdict in row.verdicts:
        tier = verdict.rule.partition("latency_ms.")[2]
        yield {
            "device": verdict.device,
            "tier": tier,
            "figure": f"rule_{verdict.rule}",
            "value": verdict.figure,
            "limit": verdict.limit,
            "passed": verdict.passed,
        }


class CsvReport(ReportFormat):
    """CSV for spreadsheets and data frames."""

    name = "csv"
    suffix = ".csv"

    def render(self, report: Report, *, color: bool = False) -> str:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, HEADER, restval="", lineterminator="\n")
        writer.writeheader()
        for row in report.rows:
            manifest = row.artifact.manifest
            names = {key: getattr(manifest, key) for key in ("model", "target", "precision", "variant", "sha256")}
            for line in _row_lines(row):
                cells = {**names, "kind": manifest.source["kind"], **line}
                writer.writerow({key: csv_cell(value) for key, value in cells.items()})
        return stream.getvalue()


REPORT = CsvReport()
