"""Which artifacts a command is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.executor import EXECUTORS
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.requirements import require
from edgekit.core.errors import EdgekitError, InputError, unknown_name
from edgekit.core.events import Failed, Noted
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.specs import TUNED
from edgekit.stages.context import Context
from edgekit.stages.conversion import routes
from edgekit.stages.models.train import parse_frameworks


@dataclass(frozen=True)
class Selection:
    """Models or artifact folders by name; framework, targets (`tflite`, `tflite:int8`), precision. Empty: all."""

    names: tuple[str, ...] = ()
    framework: str | None = None
    targets: tuple[str, ...] = ()
    precision: str | None = None

    def covers(self, artifact: Artifact) -> bool:
        """Whether the artifact is one of them, apart from its name."""
        manifest = artifact.manifest
        kinds = parse_frameworks(self.framework) if self.framework else None
        return (
            (kinds is None or manifest.source["kind"] in kinds)
            and (not self.targets or any(text in (manifest.target, str(manifest.variant)) for text in self.targets))
            and self.precision in (None, manifest.precision)
        )

    def check(self) -> None:
        """Raises InputError for a name that is none."""
        parse_frameworks(self.framework)
        routes.parse_selection([text.removesuffix(f"-{TUNED}") for text in self.targets], self.precision)


def artifacts(context: Context, selection: Selection) -> tuple[Artifact, ...]:
    """The artifacts under build/, or in the folders named, that the selection covers.

    One with a bad manifest goes to `context.failures`. Raises InputError when a name is neither a folder of an artifact
    nor a model, and when there is nothing.
    """
    selection.check()
    found = [artifact for folder in _folders(context, selection.names) if (artifact := _load(context, folder))]
    covered = tuple(artifact for artifact in found if selection.covers(artifact))
    if not covered and not context.failures:
        what = f" of {', '.join(selection.names)}" if selection.names else ""
        raise InputError(f"there is no artifact{what} in {context.project.build} that fits; run: edgekit export")
    return covered


def _folders(context: Context, names: Iterable[str]) -> list[Path]:
    names = tuple(names)
    if not names:
        return list(context.project.artifact_folders())
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if (path / MANIFEST_FILE).is_file():
            found.append(path.resolve())
        elif (context.project.build / name).is_dir() and "/" not in name:
            found += sorted(item.parent for item in (context.project.build / name).glob(f"*/*/{MANIFEST_FILE}"))
        elif name not in context.project.models():
            if path.exists():
                raise InputError(f"{name}: this is not the folder of an artifact: there is no {MANIFEST_FILE} in it")
            raise unknown_name("model or artifact folder", name, list(context.project.models()))
    return found


def _load(context: Context, folder: Path) -> Artifact | None:
    try:
        return load_artifact(folder)
    except EdgekitError as error:
        context.failures.append(error)
        context.emit(Failed(f"read {folder.name}", str(error)))
        return None


def with_runtime(context: Context, artifacts: Sequence[Artifact], runtime: str) -> tuple[Artifact, ...]:
    """Return the artifacts that a runtime runs; the others are noted. An empty name stands for each one's default.

    Raises:
        InputError: There is no such runtime, or it runs none of them; the message lists what does.
    """
    if not runtime:
        return tuple(artifacts)
    RUNTIMES.load(runtime)
    runtimes = {artifact.manifest.target: routes.runtimes_of(artifact.manifest.target) for artifact in artifacts}
    chosen = tuple(artifact for artifact in artifacts if runtime in runtimes[artifact.manifest.target])
    if not chosen:
        listed = "; ".join(f"{target}: {', '.join(names)}" for target, names in sorted(runtimes.items()))
        raise InputError(f"{runtime} runs none of these artifacts; runtimes: {listed}")
    for artifact in artifacts:
        if artifact not in chosen:
            context.emit(Noted(artifact.label, f"left out: {runtime} does not run {artifact.manifest.target} files"))
    return chosen


def check_executors(names: Iterable[str]) -> None:
    """Raise InputError for an executor that does not exist, and MissingDependency where one lacks a package."""
    for name in names:
        executor = EXECUTORS.load(name)
        require(executor.requires, f"the executor {name}")
