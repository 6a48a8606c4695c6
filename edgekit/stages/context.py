"""What every stage is handed: the project, the workers, and who listens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import edgekit.contracts.target  # noqa: F401  # records may name precisions that targets of other packages define
from edgekit.config.model import ModelSpec, load_model_spec
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import SOURCES
from edgekit.core.environment.project import Project, portable_path
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepError
from edgekit.core.events import Failed, Finished, Listener, Started
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.devices import host_machine
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

T = TypeVar("T")
FRAMEWORKS = ("keras", "torch")


@dataclass
class Context:
    """`failures` gathers the errors of steps that failed while the others went on."""

    project: Project
    pool: WorkerPool
    emit: Listener
    failures: list[EdgekitError] = field(default_factory=list)
    written: dict[tuple[str, str], Path] = field(default_factory=dict)
    """Sources that were written as a file of another kind in this run: (source folder, kind) -> source folder."""
    _sources: dict[Path, tuple[tuple[int, int, int], SourceModel]] = field(default_factory=dict)
    _scratch: list[tempfile.TemporaryDirectory[str]] = field(default_factory=list)

    def scratch(self) -> Path:
        """A folder that ends with the run."""
        if not self._scratch:
            self._scratch.append(tempfile.TemporaryDirectory(prefix="edgekit-"))
        return Path(self._scratch[0].name)

    def attempt(self, step: str, work: Callable[[], T], detail: Callable[[T], str]) -> T | None:
        """Runs one step of several: its error is told and kept, and the others get their turn. None when it failed."""
        self.emit(Started(step))
        return self.settle(step, work, detail)

    def settle(self, step: str, work: Callable[[], T], detail: Callable[[T], str]) -> T | None:
        """The same for a step that was already said to have started."""
        try:
            value = work()
        except (InputError, MissingDependency, StepError) as error:
            self.failures.append(error)
            self.emit(Failed(step, str(error), getattr(error, "stderr_tail", "")))
            return None
        self.emit(Finished(step, detail(value)))
        return value

    def load_source(self, folder: Path) -> SourceModel:
        """Return the description of a source, read again only when its file has changed.

        Raises:
            InputError: The file is missing or damaged.
        """
        path = folder / SOURCE_FILE
        try:
            status = path.stat()
        except OSError:
            return load_source(folder)  # it says what is wrong
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._sources.get(path, (None,))[0] != stamp:
            self._sources[path] = stamp, load_source(folder)
        return self._sources[path][1]

    def spec(self, model: str) -> ModelSpec:
        """The model's model.toml."""
        return load_model_spec(self.project.model_folder(model))

    def close(self) -> None:
        """Removes the scratch folder."""
        while self._scratch:
            self._scratch.pop().cleanup()
        self.written.clear()

    def raise_failures(self) -> None:
        """Raise the most severe failure, if any; notes on it name the other ones.

        Raises:
            EdgekitError: A step failed.
        """
        if not self.failures:
            return
        error = max(self.failures, key=lambda failure: failure.exit_code)
        for other in self.failures:
            if other is not error:
                error.add_note(f"also failed: {other}")
        raise error

    @property
    def exit_code(self) -> int:
        """0, or that of the worst failure: a crash before a missing package before bad input."""
        return max((error.exit_code for error in self.failures), default=0)


def source_environment(kind: str) -> Environment:
    """The environment of a source kind's worker."""
    return Environment.of(SOURCES.load(kind).variables)


def training_environment(kind: str) -> Environment:
    """The environment in which a source kind is trained: with every core, where the user does not say otherwise."""
    threads = os.environ.get("OMP_NUM_THREADS", str(len(host_machine.available_cpus())))
    return Environment.of({"OMP_NUM_THREADS": threads, **SOURCES.load(kind).variables})


def runtime_environment(name: str) -> Environment:
    """The environment of a runtime's worker."""
    return Environment.of(RUNTIMES.load(name).variables)


def relative(path: Path, project: Project) -> str:
    """The path as a person would write it from the project's root; what came with edgekit without where that is."""
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else portable_path(str(path))
