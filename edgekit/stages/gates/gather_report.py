"""Gathers the recorded results of artifacts into a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgekit._version import __version__
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.layer_errors import layers_of
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.runtime_versions import RuntimeVersions, load_runtime_versions, runtime_versions_file
from edgekit.core.records.source import load_source
from edgekit.core.values.budgets import Budget
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.devices import host_machine
from edgekit.stages.context import Context
from edgekit.stages.gates.check import check_one, read_emulated_validations, read_measurements, read_validation


def gather(context: Context, artifacts: Sequence[Artifact], user_budgets: Sequence[Budget] = ()) -> Report:
    """Gather the report on several artifacts.

    Args:
        context: The project.
        artifacts: The artifacts.
        user_budgets: Budgets of the user, in addition to those of models and devices.

    Returns:
        The report.

    Raises:
        InputError: A file of an earlier stage is damaged.
    """
    return assemble(context, [row(context, artifact, user_budgets) for artifact in artifacts])


def row(
    context: Context,
    artifact: Artifact,
    user_budgets: Sequence[Budget] = (),
    devices: Sequence[str] | None = None,
    emulated: Sequence[str] | None = None,
    *,
    layers: bool = True,
) -> ReportRow:
    """Gather the results of one artifact.

    Args:
        context: The project.
        artifact: The artifact.
        user_budgets: Budgets of the user, in addition to those of the model and the devices.
        devices: The devices whose measurements are included; None for all.
        emulated: The devices whose emulated validations are included; None for all.
        layers: Whether to include the error by layer, unless it is stale.

    Returns:
        The row of the report.

    Raises:
        InputError: A file of an earlier stage is damaged.
    """
    # Results of other model files have a failed verdict, and no place among the figures of these.
    measurements = [item for item in read_measurements(artifact, devices) if not artifact.why_foreign(item)]
    validations = [item for item in read_emulated_validations(artifact, emulated) if not artifact.why_foreign(item)]
    validation = read_validation(artifact)
    if validation is not None and artifact.why_foreign(validation):
        validation = None
    verdicts = check_one(context, artifact, user_budgets, devices, emulated)
    return ReportRow(
        artifact,
        validation,
        tuple(measurements),
        verdicts,
        tuple(validations),
        layers_of(artifact) if layers else None,
        tuple(_runtime_versions(artifact, devices)),
    )


def _runtime_versions(artifact: Artifact, devices: Sequence[str] | None) -> Iterator[RuntimeVersions]:
    for path in sorted(artifact.folder.glob(runtime_versions_file("*"))):
        record = load_runtime_versions(path)
        is_wanted = devices is None or record.device in devices
        if is_wanted and record.artifact_sha256 == artifact.manifest.sha256:
            yield record


def assemble(context: Context, rows: Sequence[ReportRow]) -> Report:
    """Assemble a report from its rows.

    Args:
        context: The project.
        rows: The rows, as returned by `row`.

    Returns:
        The report, with the sources of the artifacts and the description of this host.

    Raises:
        InputError: The description of a source model is damaged.
    """
    folders = sorted({row.artifact.folder.parent / "source" for row in rows})
    sources = tuple(load_source(folder) for folder in folders if (folder / SOURCE_FILE).is_file())
    return Report(__version__, host_machine.description(), sources, tuple(rows), _class_names(context, rows))


def _class_names(context: Context, rows: Sequence[ReportRow]) -> dict[str, tuple[str, ...]]:
    """Return the class names by model, for models whose model.toml has them."""
    models = {row.artifact.manifest.model for row in rows} & context.project.models().keys()
    return {model: names for model in sorted(models) if (names := tuple(context.spec(model).output.classes))}
