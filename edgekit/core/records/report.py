"""What the reports are made of: one row an artifact, one line a bench, and the verdicts."""

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
    """One artifact and what the stages found out about it; None and empty where a stage has not run.

    `emulated` are the validations on devices' emulated cores, one a device; `layers` is the error by layer.
    """

    artifact: Artifact
    validation: Validation | None
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    emulated: tuple[Validation, ...] = ()
    layers: LayerErrors | None = None

    @property
    def passed(self) -> bool:
        """Whether no verdict on it failed."""
        return all(verdict.passed for verdict in self.verdicts)


@dataclass(frozen=True)
class Report:
    """The whole build folder. `edgekit` is the version that wrote it, `host` the machine that it ran on.

    `class_names` are those of a model's classes, where edgekit knows the model and it says; `changes` is what differs
    from a baseline, where one was given.
    """

    edgekit: str
    host: str
    sources: tuple[SourceModel, ...]
    rows: tuple[ReportRow, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changes: ChangeReport | None = None

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Every verdict that failed."""
        return tuple(verdict for row in self.rows for verdict in row.verdicts if not verdict.passed)

    @property
    def verdict_count(self) -> int:
        """How many rules were judged."""
        return sum(len(row.verdicts) for row in self.rows)


def load_report(path: Path) -> Report:
    """What `edgekit report --format json` wrote, without the sources. Raises InputError when it is something else."""
    data = read_json(path, "report")
    if data.get("schema_version") != REPORT_SCHEMA or not isinstance(data.get("artifacts"), list):
        how = "write one with: edgekit report --format json --output FILE"
        raise InputError(f"{path}: not a report of version {REPORT_SCHEMA}; {how}")
    try:
        rows = tuple(_row(item, path) for item in data["artifacts"])
        return Report(str(data["edgekit"]), str(data["host"]), (), rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: this report lacks or mistypes a key ({error})") from None


def _row(data: dict[str, Any], path: Path) -> ReportRow:
    validation = data["validation"]
    verdicts = ({key: value for key, value in item.items() if key != "sentence"} for item in data["verdicts"])
    return ReportRow(
        Artifact(Path(data["folder"]), manifest_from_dict(data["manifest"], path)),
        None if validation is None else validation_from_dict(validation, path),
        tuple(measurement_from_dict(item, path) for item in data["measurements"]),
        tuple(Verdict(**item) for item in verdicts),
        tuple(validation_from_dict(item, path) for item in data.get("emulated_validations", ())),
        None if data.get("layers") is None else layers_from_dict(data["layers"], path),
    )
