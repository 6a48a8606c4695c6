"""The card stage: everything that is known of a reference model."""

from __future__ import annotations

from edgekit.config.card import Card
from edgekit.core.errors import EdgekitError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import load_source
from edgekit.stages.context import FRAMEWORKS, Context
from edgekit.stages.conversion.inspect import describe
from edgekit.stages.gates.check import measurements_of


def card(context: Context, name: str) -> Card:
    """Raises InputError for an unknown model, a bad model.toml, or a damaged source.json."""
    project = context.project
    folder, spec = project.model_folder(name), context.spec(name)
    kinds = [kind for kind in FRAMEWORKS if project.is_trained(name, kind)]
    trained = tuple(load_source(project.source_folder(name, kind)) for kind in kinds)
    counted = {kind: macs for kind in kinds if (macs := _macs(context, name, kind)) is not None}
    return Card(name, folder, spec, trained, counted, tuple(kind for kind in FRAMEWORKS if kind not in kinds))


def _macs(context: Context, name: str, kind: str) -> int | None:
    """The multiply-accumulates of one inference as a float32 artifact tells them: in a bench result, or its file."""
    artifacts = []
    for folder in sorted((context.project.build / name / kind).glob("*-float32")):
        try:
            artifacts.append(load_artifact(folder))
        except EdgekitError:
            continue  # a damaged artifact is for `validate` to tell
    for look in (_measured, lambda artifact: _described(context, artifact)):
        for artifact in artifacts:
            macs = look(artifact)
            if macs is not None:
                return macs
    return None


def _measured(artifact: Artifact) -> int | None:
    try:
        return next((item.macs for item in measurements_of(artifact) if item.macs is not None), None)
    except EdgekitError:
        return None


def _described(context: Context, artifact: Artifact) -> int | None:
    try:
        target = artifact.manifest.target
        return describe(context, target, artifact.verified_path(), f"inspect {artifact.label}").macs
    except EdgekitError:
        return None
