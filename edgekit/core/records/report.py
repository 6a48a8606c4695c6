"""The data of a report, which `edgekit report --format json` writes: one row an artifact, with all its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact, manifest_from_dict
from edgekit.core.records.layer_errors import LayerErrors, layers_from_dict
from edgekit.core.records.measurement import Measurement, measurement_from_dict
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.runtime_versions import RuntimeVersions, runtime_versions_from_dict
from edgekit.core.records.source import SourceModel
from edgekit.core.records.validation import Validation, validation_from_dict
from edgekit.core.values.budgets import Verdict
from edgekit.core.values.typed_json import Name, decode, decode_any

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
        runtime_versions: The counts under several versions of the runtime, one comparison a device.
    """

    artifact: Artifact
    validation: Validation | None
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    emulated: tuple[Validation, ...] = ()
    layers: LayerErrors | None = None
    runtime_versions: tuple[RuntimeVersions, ...] = ()

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
    edgekit, host = (decode_any(Name, data.get(key), f"{path}: {key}") for key in ("edgekit", "host"))
    rows = (_decode_row(row, path, f"{path}: artifacts[{index}]") for index, row in enumerate(data["artifacts"]))
    return Report(edgekit, host, (), tuple(rows))


@dataclass(frozen=True)
class _StoredRow:
    """A row of the JSON report; the keys that only repeat others are read and ignored."""

    folder: str
    manifest: Any
    validation: Any
    measurements: tuple[Any, ...]
    verdicts: tuple[Any, ...]
    emulated_validations: tuple[Any, ...] = ()
    layers: Any = None
    runtime_versions: tuple[Any, ...] = ()
    model: Any = None
    kind: Any = None
    variant: Any = None
    passed: Any = None


def _decode_row(data: Any, path: Path, place: str) -> ReportRow:
    stored = decode(_StoredRow, data, place)
    artifact = Artifact(Path(stored.folder), manifest_from_dict(stored.manifest, Path(f"{place}.manifest")))
    validation = None
    if stored.validation is not None:
        validation = validation_from_dict(stored.validation, Path(f"{place}.validation"))
    return ReportRow(
        artifact,
        validation,
        tuple(
            measurement_from_dict(item, Path(f"{place}.measurements[{index}]"))
            for index, item in enumerate(stored.measurements)
        ),
        tuple(_decode_verdict(item, f"{place}.verdicts[{index}]") for index, item in enumerate(stored.verdicts)),
        tuple(
            validation_from_dict(item, Path(f"{place}.emulated_validations[{index}]"))
            for index, item in enumerate(stored.emulated_validations)
        ),
        None if stored.layers is None else layers_from_dict(stored.layers, Path(f"{place}.layers")),
        tuple(
            runtime_versions_from_dict(item, Path(f"{place}.runtime_versions[{index}]"))
            for index, item in enumerate(stored.runtime_versions)
        ),
    )


def _decode_verdict(data: Any, place: str) -> Verdict:
    # "sentence" is derived from the other keys, for readers of the JSON.
    values = {key: value for key, value in data.items() if key != "sentence"} if isinstance(data, dict) else data
    verdict = decode(Verdict, values, place)
    if verdict.limit is None:
        return verdict
    # What the figure says counts, not what the file says about it.
    return replace(verdict, passed=verdict.figure is not None and verdict.figure <= verdict.limit)
