"""Selection of the artifacts that a command works on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.executor import EXECUTORS
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.requirements import require
from edgekit.core.errors import EdgekitError, InputError, unknown_name
from edgekit.core.events import FailEvent, NoteEvent
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.specs import Variant
from edgekit.stages.context import Context
from edgekit.stages.conversion import routes
from edgekit.stages.models.train import parse_frameworks
from edgekit.stages.validation.bare_file import artifact_of_bare_file, is_bare_file
from edgekit.stages.validation.compare import artifact_of


@dataclass(frozen=True)
class Selection:
    """A filter for artifacts; an empty field matches all of them.

    Attributes:
        names: Models by name, or artifact folders by path; some commands also take model files.
        framework: `keras`, `torch` or `both`.
        targets: Targets or variants, such as `tflite` or `tflite:int8`.
        precision: A precision, such as `int8`.
    """

    names: tuple[str, ...] = ()
    framework: str | None = None
    targets: tuple[str, ...] = ()
    precision: str | None = None

    def covers(self, artifact: Artifact) -> bool:
        """Return whether framework, target and precision match the artifact; names are not compared."""
        manifest = artifact.manifest
        kinds = parse_frameworks(self.framework) if self.framework else None
        return (
            (kinds is None or manifest.source["kind"] in kinds)
            and (not self.targets or any(text in (manifest.target, str(manifest.variant)) for text in self.targets))
            and self.precision in (None, manifest.precision)
        )

    def check(self) -> None:
        """Validate framework, targets and precision.

        Raises:
            InputError: One of them is unknown.
        """
        parse_frameworks(self.framework)
        targets = [str(Variant.parse(text).untagged) if ":" in text else text for text in self.targets]
        routes.parse_selection(targets, self.precision)


def artifacts(context: Context, selection: Selection, *, files: bool = False) -> tuple[Artifact, ...]:
    """Load the artifacts under build/, or in the named folders, that a selection matches.

    Args:
        context: The project; an artifact with an invalid manifest is added to its failures.
        selection: The filter.
        files: Whether a name may also be a model file without a manifest; it then becomes an artifact of this run.

    Returns:
        The artifacts, sorted by folder.

    Raises:
        InputError: A name is neither an artifact folder nor a model, or no artifact matches.
    """
    selection.check()
    bare = [name for name in selection.names if files and is_bare_file(Path(name))]
    names = [name for name in selection.names if name not in bare]
    folders = _folders(context, names) if names or not bare else []
    loaded = [artifact for folder in folders if (artifact := _load(context, folder))]
    loaded += [artifact_of_bare_file(context, Path(name)) for name in bare]
    matches = tuple(artifact for artifact in loaded if selection.covers(artifact))
    if not matches and not context.failures:
        models = f" of {', '.join(selection.names)}" if selection.names else ""
        raise InputError(f"no artifact{models} in {context.project.build} matches the selection; run: edgekit export")
    return matches


def _folders(context: Context, names: Iterable[str]) -> list[Path]:
    names = tuple(names)
    if not names:
        return list(context.project.artifact_folders())
    folders: list[Path] = []
    for name in names:
        path = Path(name)
        if (path / MANIFEST_FILE).is_file():
            folders.append(path.resolve())
        elif (context.project.build / name).is_dir() and "/" not in name:
            folders += context.project.artifact_folders(name)
        elif name not in context.project.models():
            if path.is_file() and (artifact := artifact_of(path)) is not None:
                folders.append(artifact.folder.resolve())
                continue
            if path.is_file():
                advice = "export the model first, or compare files with: edgekit compare"
                raise InputError(f"{name}: this command needs an artifact; {advice}")
            if path.exists():
                raise InputError(f"{name}: not an artifact folder: it contains no {MANIFEST_FILE}")
            raise unknown_name("model or artifact folder", name, list(context.project.models()))
    return folders


def _load(context: Context, folder: Path) -> Artifact | None:
    try:
        return load_artifact(folder)
    except EdgekitError as error:
        context.failures.append(error)
        context.emit(FailEvent(f"read {folder.name}", str(error)))
        return None


def with_runtime(context: Context, artifacts: Sequence[Artifact], runtime: str) -> tuple[Artifact, ...]:
    """Return the artifacts that a runtime can run; an event names each of the others.

    Args:
        context: Receives the events.
        artifacts: The artifacts.
        runtime: Name of a runtime; empty for the default runtime of each artifact, which keeps all of them.

    Raises:
        InputError: The runtime is unknown, or runs none of the artifacts; the message lists the runtimes that do.
    """
    if not runtime:
        return tuple(artifacts)
    RUNTIMES.load(runtime)
    runtimes = {artifact.manifest.target: routes.runtimes_of(artifact.manifest.target) for artifact in artifacts}
    runnable = tuple(artifact for artifact in artifacts if runtime in runtimes[artifact.manifest.target])
    if not runnable:
        available = "; ".join(f"{target}: {', '.join(names)}" for target, names in sorted(runtimes.items()))
        raise InputError(f"{runtime} runs none of these artifacts; available runtimes: {available}")
    for artifact in artifacts:
        if artifact not in runnable:
            context.emit(NoteEvent(artifact.label, f"skipped: {runtime} does not run {artifact.manifest.target} files"))
    return runnable


def check_executors(names: Iterable[str]) -> None:
    """Check that executors exist and that their packages are installed.

    Raises:
        InputError: An executor is unknown.
        MissingDependency: A package that an executor needs is not installed.
    """
    for name in names:
        executor = EXECUTORS.load(name)
        require(executor.requires, f"the executor {name}")
