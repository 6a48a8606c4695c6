"""The inspect stage: what is in an artifact, or in a bare model file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import EdgekitError, InputError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.specs import ModelDescription, Signature
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.describe_job import FileRequest, describe_file, read_lifetimes


@dataclass(frozen=True)
class Inspection:
    """The file, what is in it, and the artifact it belongs to, if it does."""

    path: Path
    size_bytes: int
    description: ModelDescription
    artifact: Artifact | None

    @property
    def signature(self) -> Signature:
        """The manifest's where there is one (it knows layouts), else the file's."""
        return self.artifact.manifest.signature if self.artifact else self.description.signature


def lifetimes_of(context: Context, artifact: Artifact) -> tuple[TensorLifetime, ...]:
    """How long each tensor of an artifact lives; none where its format does not tell, or it cannot be read."""
    plugin = routes.load_target(artifact.manifest.target)
    try:
        return context.pool.call(
            read_lifetimes,
            FileRequest(plugin.name, str(artifact.path)),
            step=f"read {artifact.label}",
            environment=runtime_environment(plugin.runtime),
        )
    except EdgekitError:  # what is wrong with it is told by the step that runs it
        return ()


def describe(context: Context, target: str, path: Path, step: str) -> ModelDescription:
    """What is in a file of the target's format. Raises InputError when it is not one; StepError when reading kills."""
    plugin = routes.load_target(target)
    return context.pool.call(
        describe_file,
        FileRequest(target, str(path)),
        step=step,
        environment=runtime_environment(plugin.runtime),
    )


def inspect(context: Context, path: Path) -> Inspection:
    """Of an artifact's folder, or a model file. Raises InputError when it is neither."""
    if path.is_dir():
        if not (path / MANIFEST_FILE).is_file():
            raise InputError(f"{path}: this is not the folder of an artifact: there is no {MANIFEST_FILE} in it")
        artifact = load_artifact(path)
        file, target = artifact.verified_path(), artifact.manifest.target
    else:
        artifact, file, target = None, path, _target_of(path)
    description = describe(context, target, file, f"inspect {path.name}")
    return Inspection(file, file.stat().st_size, description, artifact)


def _target_of(path: Path) -> str:
    """The target whose files end like this one. Raises InputError that lists the endings."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    suffixes = {suffix: name for name, target in routes.targets().items() for suffix in target.suffixes}
    if path.suffix not in suffixes:
        known = ", ".join(sorted(suffixes))
        raise InputError(f"{path}: cannot tell the format of a file that ends in '{path.suffix}'; known: {known}")
    return suffixes[path.suffix]
