"""The overview of the HTML page: a line a model, a column a variant, in each cell size, error and verdict."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.records.report import Report, ReportRow
from edgekit.core.units import format_bytes
from edgekit.core.values.specs import PRECISIONS
from edgekit.reports._html.tables import evidence_key, subject_of, verdict_of
from edgekit.reports._shared.cells import NOTHING

_MARKS = {"passed": "good", "failed": "bad", "not judged": "doubt"}


@dataclass(frozen=True)
class MatrixCell:
    """One artifact. `error` is the largest difference from the source's outputs; `verdict` is of all its rules."""

    size: str
    error: str
    verdict: str
    mark: str
    link: str


@dataclass(frozen=True)
class Matrix:
    """`targets` have their precisions in order; a line has a cell for each of them all, None where nothing was made."""

    targets: tuple[tuple[str, tuple[str, ...]], ...]
    lines: tuple[tuple[str, tuple[MatrixCell | None, ...]], ...]


def matrix(report: Report) -> Matrix:
    """Every artifact of the report in its place."""
    present = {(row.artifact.manifest.target, row.artifact.manifest.precision) for row in report.rows}
    targets = tuple(
        (target, tuple(name for name in PRECISIONS if (target, name) in present))
        for target in sorted({target for target, _ in present})
    )
    cells = {
        (subject_of(row), row.artifact.manifest.target, row.artifact.manifest.precision): row for row in report.rows
    }
    columns = [(target, name) for target, names in targets for name in names]
    lines = tuple(
        (subject, tuple(_cell(cells.get((subject, *column))) for column in columns))
        for subject in dict.fromkeys(map(subject_of, report.rows))
    )
    return Matrix(targets, lines)


def _cell(row: ReportRow | None) -> MatrixCell | None:
    if row is None:
        return None
    error = row.validation.worst("max_abs_error") if row.validation else None
    verdict = verdict_of(row)
    size = format_bytes(row.artifact.manifest.size_bytes)
    return MatrixCell(size, NOTHING if error is None else f"{error:.1e}", verdict, _MARKS[verdict], evidence_key(row))
