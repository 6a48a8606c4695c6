"""The inspect stage: describes the contents of an artifact or of a model file."""

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
    """The contents of a model file.

    Attributes:
        path: The model file.
        size_bytes: Its size in bytes, of an artifact that of all model files.
        description: Its contents.
        artifact: The artifact that it belongs to, or None.
    """

    path: Path
    size_bytes: int
    description: ModelDescription
    artifact: Artifact | None

    @property
    def signature(self) -> Signature:
        """The signature of the manifest, which has layouts, otherwise that of the file; in the order of the file."""
        in_file = self.description.signature
        return self.artifact.manifest.signature.ordered_as(in_file) if self.artifact else in_file


def lifetimes_of(context: Context, artifact: Artifact) -> tuple[TensorLifetime, ...]:
    """Return the lifetime of each computed tensor of an artifact.

    Args:
        context: The workers.
        artifact: The artifact.

    Returns:
        The lifetimes; empty if the format has no such information or the file cannot be read.
    """
    plugin = routes.load_target(artifact.manifest.target)
    try:
        return context.pool.call(
            read_lifetimes,
            FileRequest(plugin.name, str(artifact.path)),
            step=f"read {artifact.label}",
            environment=runtime_environment(plugin.runtime),
        )
    except EdgekitError:  # the step that runs the artifact reports the error
        return ()


def describe(context: Context, target: str, path: Path, step: str) -> ModelDescription:
    """Describe a file of a target's format.

    Args:
        context: The workers.
        target: Name of the target.
        path: The model file; absolute.
        step: The step's name, for events.

    Raises:
        InputError: The file does not have this format, or is damaged.
        MissingDependency: A package that reads the format is not installed.
        StepError: The worker crashed while reading the file.
    """
    plugin = routes.load_target(target)
    return context.pool.call(
        describe_file,
        FileRequest(target, str(path)),
        step=step,
        environment=runtime_environment(plugin.runtime),
    )


def inspect(context: Context, path: Path) -> Inspection:
    """Inspect an artifact or a model file.

    Args:
        context: The workers.
        path: The artifact's folder, or a model file.

    Raises:
        InputError: The path is neither of them, or the file is damaged.
        MissingDependency: A package that reads the format is not installed.
        StepError: The worker crashed while reading the file.
    """
    if path.is_dir():
        if not (path / MANIFEST_FILE).is_file():
            raise InputError(f"{path}: not an artifact folder: it contains no {MANIFEST_FILE}")
        artifact = load_artifact(path)
        file, target = artifact.verified_path(), artifact.manifest.target
    else:
        artifact, file, target = None, path, _target_of(path)
    description = describe(context, target, file, f"inspect {path.name}")
    size = artifact.manifest.size_bytes if artifact else file.stat().st_size
    return Inspection(file, size, description, artifact)


def _target_of(path: Path) -> str:
    """Return the target whose files have this suffix. Raise InputError, which lists the suffixes, if there is none."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    suffixes = {suffix: name for name, target in routes.targets().items() for suffix in target.suffixes}
    if path.suffix not in suffixes:
        allowed = ", ".join(sorted(suffixes))
        raise InputError(f"{path}: unknown file suffix '{path.suffix}'; known: {allowed}")
    return suffixes[path.suffix]
