"""The overview of the HTML page: one row per model, one column per variant; cells hold size, error and verdict."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from edgekit.core.records.report import Report, ReportRow
from edgekit.core.units import format_bytes
from edgekit.core.values.precisions import precision_names
from edgekit.core.values.specs import Variant
from edgekit.reports._html.tables import evidence_key, subject_of, verdict_of
from edgekit.reports._shared.cells import NOTHING

_MARKS = {"passed": "good", "failed": "bad", "not judged": "doubt"}


@dataclass(frozen=True)
class MatrixCell:
    """One artifact; `error` is the largest difference from the source's outputs, `verdict` is on all of its rules."""

    size: str
    error: str
    verdict: str
    mark: str
    link: str


@dataclass(frozen=True)
class Matrix:
    """The overview.

    Attributes:
        targets: Each target with the names of its columns: precision, with the tag of a tuned variant.
        lines: Each model with one cell per column; None where the model has no such artifact.
    """

    targets: tuple[tuple[str, tuple[str, ...]], ...]
    lines: tuple[tuple[str, tuple[MatrixCell | None, ...]], ...]


def matrix(report: Report) -> Matrix:
    """Return the overview of all artifacts of the report."""
    variants = sorted({row.artifact.manifest.variant for row in report.rows}, key=_column_order)
    targets = tuple(
        (target, tuple(_column_name(variant) for variant in columns))
        for target, columns in groupby(variants, key=lambda variant: variant.target)
    )
    rows = {(subject_of(row), row.artifact.manifest.variant): row for row in report.rows}
    lines = tuple(
        (subject, tuple(_cell(rows.get((subject, variant))) for variant in variants))
        for subject in dict.fromkeys(map(subject_of, report.rows))
    )
    return Matrix(targets, lines)


def _column_order(variant: Variant) -> tuple[str, int, str]:
    return variant.target, precision_names().index(variant.precision), variant.tag


def _column_name(variant: Variant) -> str:
    """`int8`, or `int8-tuned`: the variant without its target, which heads a group of columns."""
    return str(variant).removeprefix(f"{variant.target}:")


def _cell(row: ReportRow | None) -> MatrixCell | None:
    if row is None:
        return None
    error = row.validation.worst("max_abs_error") if row.validation else None
    verdict = verdict_of(row)
    size = format_bytes(row.artifact.manifest.size_bytes)
    return MatrixCell(size, NOTHING if error is None else f"{error:.1e}", verdict, _MARKS[verdict], evidence_key(row))
