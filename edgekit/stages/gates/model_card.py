"""Gathers the model card of a reference model."""

from __future__ import annotations

from edgekit.config.card import Card
from edgekit.core.errors import EdgekitError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.source import load_source
from edgekit.stages.context import FRAMEWORKS, Context
from edgekit.stages.conversion.inspect import describe
from edgekit.stages.gates.check import read_measurements


def card(context: Context, name: str) -> Card:
    """Gather the model card of a reference model.

    Args:
        context: The project and its workers.
        name: The name of the model.

    Returns:
        The card, with the trained frameworks and the multiply-accumulates of each.

    Raises:
        InputError: The model is unknown, its model.toml is invalid, or a source.json is damaged.
    """
    project = context.project
    folder, spec = project.model_folder(name), context.spec(name)
    kinds = [kind for kind in FRAMEWORKS if project.is_trained(name, kind)]
    trained = tuple(load_source(project.source_folder(name, kind)) for kind in kinds)
    macs_by_kind = {kind: macs for kind in kinds if (macs := _find_macs(context, name, kind)) is not None}
    return Card(name, folder, spec, trained, macs_by_kind, tuple(kind for kind in FRAMEWORKS if kind not in kinds))


def _find_macs(context: Context, name: str, kind: str) -> int | None:
    """Return the multiply-accumulates of a float32 artifact, from a measurement or else from the model file."""
    artifacts = []
    for folder in sorted((context.project.build / name / kind).glob("*-float32")):
        try:
            artifacts.append(load_artifact(folder))
        except EdgekitError:
            continue  # `edgekit validate` reports damaged artifacts
    # Measurements first: reading them is much faster than inspecting a model file in a worker.
    for read_macs in (_measured_macs, lambda artifact: _inspected_macs(context, artifact)):
        for artifact in artifacts:
            macs = read_macs(artifact)
            if macs is not None:
                return macs
    return None


def _measured_macs(artifact: Artifact) -> int | None:
    try:
        return next((entry.macs for entry in _own_measurements(artifact) if entry.macs is not None), None)
    except EdgekitError:
        return None


def _own_measurements(artifact: Artifact) -> list[Measurement]:
    return [measurement for measurement in read_measurements(artifact) if not artifact.why_foreign(measurement)]


def _inspected_macs(context: Context, artifact: Artifact) -> int | None:
    try:
        target = artifact.manifest.target
        return describe(context, target, artifact.verified_path(), f"inspect {artifact.label}").macs
    except EdgekitError:
        return None
