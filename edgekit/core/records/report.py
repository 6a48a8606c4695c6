"""The data of a report, which `edgekit report --format json` writes: one row an artifact, with all its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact, manifest_from_dict
from edgekit.core.records.layer_errors import LayerErrors, layers_from_dict
from edgekit.core.records.measurement import Measurement, measurement_from_dict
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.source import SourceModel
from edgekit.core.records.validation import Validation, validation_from_dict
from edgekit.core.values.budgets import Verdict

REPORT_SCHEMA = 1


@dataclass(frozen=True)
class ReportRow:
    """One artifact and the records of all stages; a record is None or empty if its stage has not run.

    Attributes:
        artifact: The artifact.
        validation: The validation on this host.
        measurements: One measurement a device.
        verdicts: The verdicts of the budgets.
        emulated: The validations on emulated cores, one a device.
        layers: The error by layer.
    """

    artifact: Artifact
    validation: Validation | None
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    emulated: tuple[Validation, ...] = ()
    layers: LayerErrors | None = None

    @property
    def passed(self) -> bool:
        """Whether all verdicts passed."""
        return all(verdict.passed for verdict in self.verdicts)


@dataclass(frozen=True)
class Report:
    """The records of a whole build folder.

    Attributes:
        edgekit: The version of edgekit that wrote the report.
        host: The machine that it ran on.
        sources: The source models.
        rows: The artifacts.
        class_names: Model -> the names of its classes, for the reference models that define them.
        changes: The changes from a baseline, if one was given.
    """

    edgekit: str
    host: str
    sources: tuple[SourceModel, ...]
    rows: tuple[ReportRow, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changes: ChangeReport | None = None

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts that failed."""
        return tuple(verdict for row in self.rows for verdict in row.verdicts if not verdict.passed)

    @property
    def verdict_count(self) -> int:
        """The number of all verdicts."""
        return sum(len(row.verdicts) for row in self.rows)


def load_report(path: Path) -> Report:
    """Read a report that `edgekit report --format json` wrote.

    Args:
        path: The file.

    Returns:
        The report, without its source models.

    Raises:
        InputError: The file is missing, or is not a report of this version.
    """
    data = read_json(path, "report")
    if data.get("schema_version") != REPORT_SCHEMA or not isinstance(data.get("artifacts"), list):
        hint = "write one with: edgekit report --format json --output FILE"
        raise InputError(f"{path}: not a report of version {REPORT_SCHEMA}; {hint}")
    try:
        rows = tuple(_decode_row(row, path) for row in data["artifacts"])
        return Report(str(data["edgekit"]), str(data["host"]), (), rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: this report has a missing or mistyped key ({error})") from None


def _decode_row(data: dict[str, Any], path: Path) -> ReportRow:
    validation = data["validation"]
    # "sentence" is derived from the other keys, for readers of the JSON.
    verdicts = ({key: value for key, value in item.items() if key != "sentence"} for item in data["verdicts"])
    return ReportRow(
        Artifact(Path(data["folder"]), manifest_from_dict(data["manifest"], path)),
        None if validation is None else validation_from_dict(validation, path),
        tuple(measurement_from_dict(item, path) for item in data["measurements"]),
        tuple(Verdict(**item) for item in verdicts),
        tuple(validation_from_dict(item, path) for item in data.get("emulated_validations", ())),
        None if data.get("layers") is None else layers_from_dict(data["layers"], path),
    )
