"""One CSV line a figure, for spreadsheets and data frames: bytes, milliseconds and the metric's own unit, unrounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from edgekit.contracts.report import ReportFormat
from edgekit.core.numerics.output_comparison import Comparison
from edgekit.core.records.measurement import Measurement
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


def _validated(validation: Validation) -> Iterator[_Line]:
    yield from _compared("", validation.comparisons)
    yield from _compared("stress_", validation.stress)
    drift = validation.drift
    if drift is not None:
        yield {"figure": f"{drift.metric}_source", "value": drift.source}
        yield {"figure": drift.metric, "value": drift.artifact}
        yield {"figure": "drop", "value": drift.drop}
        if drift.top1_agreement is not None:
            found: _Line = {"figure": "top1_agreement_test", "value": drift.top1_agreement}
            yield {**found, "limit": drift.min_top1_agreement, "passed": drift.passed}
        for label in drift.classes:
            yield {"figure": f"drop_class_{label.label}", "value": label.drop}


def _compared(prefix: str, comparisons: Sequence[Comparison]) -> Iterator[_Line]:
    for item in comparisons:
        for figure in item.figures:
            value = "inf" if figure.value is None else figure.value
            limit = {} if figure.limit is None else {"limit": figure.limit, "passed": figure.passed}
            yield {"output": item.output, "figure": f"{prefix}{figure.name}", "value": value, **limit}


def _emulated(validation: Validation) -> Iterator[_Line]:
    """On a device's emulated core: against the source, and against what the host computes."""
    on = {"device": validation.device, "tier": "emulated"}
    yield {**on, "figure": "equal", "value": int(validation.passed), "passed": validation.passed}
    for prefix, compared in (("", validation.comparisons), ("to_host_", validation.against_host)):
        for item in _compared(prefix, compared):
            yield {**on, **item}


def _measured(item: Measurement) -> Iterator[_Line]:
    for tier, value in sorted(item.latency_ms.items()):
        yield {"device": item.device, "tier": tier, "figure": "latency_ms", "value": value}
    if item.emulated is not None:
        emulated = {"device": item.device, "tier": "emulated"}
        interval = {"latency_low_ms": item.emulated.low_ms, "latency_high_ms": item.emulated.high_ms}
        for name, count in (*interval.items(), *asdict(item.emulated.counts).items()):
            if count is not None:
                yield {**emulated, "figure": name, "value": count}
    host = {"device": item.device, "tier": "host"}
    for name, value in asdict(item.wall).items():
        yield {**host, "figure": f"wall_{name}", "value": value}
    yield {**host, "figure": "load_ms", "value": item.load_ms}
    yield {**host, "figure": "first_inference_ms", "value": item.first_inference_ms}
    for tier, memory in (("host", item.host_peak_memory_bytes), ("emulated", item.emulated_peak_memory_bytes)):
        if memory is not None:
            yield {**host, "tier": tier, "figure": "peak_memory_bytes", "value": memory}


def _row(row: ReportRow) -> Iterator[_Line]:
    manifest = row.artifact.manifest
    yield {"figure": "size_bytes", "value": manifest.size_bytes}
    if row.validation is not None:
        yield from _validated(row.validation)
    for validation in row.emulated:
        yield from _emulated(validation)
    for item in row.measurements:
        yield from _measured(item)
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
    """For programs that read tables."""

    name = "csv"
    suffix = ".csv"

    def render(self, report: Report, *, color: bool = False) -> str:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, HEADER, restval="", lineterminator="\n")
        writer.writeheader()
        for row in report.rows:
            manifest = row.artifact.manifest
            names = {key: getattr(manifest, key) for key in ("model", "target", "precision", "variant", "sha256")}
            for item in _row(row):
                writer.writerow({**names, "kind": manifest.source["kind"], **item})
        return stream.getvalue()


REPORT = CsvReport()
