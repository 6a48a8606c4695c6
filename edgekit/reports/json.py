"""One JSON document with a schema version; keys name their units."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekit.contracts.report import ReportFormat
from edgekit.core.environment.atomic_files import to_json
from edgekit.core.records.layer_errors import to_dict
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import REPORT_SCHEMA, Report, ReportRow
from edgekit.core.records.validation import Validation


def _validation_data(validation: Validation) -> dict[str, Any]:
    return {**asdict(validation), "passed": validation.passed}


def _row_data(row: ReportRow) -> dict[str, Any]:
    manifest = row.artifact.manifest
    return {
        "model": manifest.model,
        "kind": manifest.source["kind"],
        "variant": str(manifest.variant),
        "folder": str(row.artifact.folder),
        "passed": row.passed,
        "manifest": asdict(manifest),
        "validation": None if row.validation is None else _validation_data(row.validation),
        "emulated_validations": [_validation_data(validation) for validation in row.emulated],
        "layers": None if row.layers is None else to_dict(row.layers),
        "measurements": [asdict(bench) for bench in row.measurements],
        "runtime_versions": [asdict(record) for record in row.runtime_versions],
        "verdicts": [{**asdict(verdict), "sentence": verdict.sentence} for verdict in row.verdicts],
    }


def to_data(report: Report) -> dict[str, Any]:
    """Return the report as plain data, in the schema REPORT_SCHEMA."""
    return {
        "schema_version": REPORT_SCHEMA,
        "edgekit": report.edgekit,
        "host": report.host,
        "passed": not report.failed,
        "sources": [asdict(source) for source in report.sources],
        "artifacts": [_row_data(row) for row in report.rows],
        **({"changes": changes_data(report.changes)} if report.changes is not None else {}),
    }


def changes_data(changes: ChangeReport) -> dict[str, Any]:
    """Return the differences between two reports as plain data."""
    return {
        "old": changes.old,
        "new": changes.new,
        "passed": not changes.broken,
        "sentence": changes.sentence,
        "changes": [{**asdict(change), "relative": change.relative} for change in changes.items],
    }


class JsonReport(ReportFormat):
    """JSON for programs; `edgekit report --baseline` and `--compare` read it back."""

    name = "json"
    suffix = ".json"

    def render(self, report: Report, *, color: bool = False) -> str:
        return to_json(to_data(report))

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        return to_json(changes_data(changes))


REPORT = JsonReport()
