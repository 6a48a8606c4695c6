"""The report stage: everything under build/, gathered."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit._version import __version__
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.layer_errors import layers_of
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.source import load_source
from edgekit.core.values.budgets import Budget
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.devices import host_machine
from edgekit.stages.context import Context
from edgekit.stages.gates.check import check_one, emulated_validations_of, measurements_of, validation_of


def gather(context: Context, artifacts: Sequence[Artifact], own: Sequence[Budget] = ()) -> Report:
    """Raises InputError when a file of an earlier stage is damaged."""
    return assemble(context, [row(context, artifact, own) for artifact in artifacts])


def row(
    context: Context,
    artifact: Artifact,
    own: Sequence[Budget] = (),
    devices: Sequence[str] | None = None,
    emulated: Sequence[str] | None = None,
    *,
    layers: bool = True,
) -> ReportRow:
    """What is known of one artifact; of its benches, and of its validations on emulated cores, those on some devices;
    its error by layer where `layers` asks for it and it is not stale.

    Raises InputError like `gather`.
    """
    measurements, validations = measurements_of(artifact, devices), emulated_validations_of(artifact, emulated)
    verdicts = check_one(context, artifact, own, devices, emulated)
    return ReportRow(
        artifact, validation_of(artifact), measurements, verdicts, validations, layers_of(artifact) if layers else None
    )


def assemble(context: Context, rows: Sequence[ReportRow]) -> Report:
    """The report on these artifacts. Raises InputError when a source's description is damaged."""
    folders = sorted({item.artifact.folder.parent / "source" for item in rows})
    sources = tuple(load_source(folder) for folder in folders if (folder / SOURCE_FILE).is_file())
    return Report(__version__, host_machine.description(), sources, tuple(rows), _class_names(context, rows))


def _class_names(context: Context, rows: Sequence[ReportRow]) -> dict[str, tuple[str, ...]]:
    """The names of the classes of the models that edgekit knows and that give them."""
    known = {item.artifact.manifest.model for item in rows} & context.project.models().keys()
    return {model: names for model in sorted(known) if (names := tuple(context.spec(model).output.classes))}
