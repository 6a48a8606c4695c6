"""The context that every stage is run with: the project, the worker pool and the event listener."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

# Imported for its side effect: records may name precisions that targets of other packages define.
import edgekit.contracts.target  # noqa: F401
from edgekit.config.model import ModelSpec, load_model_spec
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import SOURCES
from edgekit.core.environment.atomic_files import move_files
from edgekit.core.environment.project import Project, portable_path
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepError
from edgekit.core.events import FailEvent, FinishEvent, Listener, OverviewEvent, StartEvent
from edgekit.core.logs import log_step, logged
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.devices import host_machine
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

T = TypeVar("T")
# The frameworks of the reference models. They are source kinds too, but not the only ones.
FRAMEWORKS = ("keras", "torch")


@dataclass
class Context:
    """The project, the workers and the listener of one run.

    Attributes:
        project: The project's folders.
        pool: The worker processes.
        emit: Receives the events of the run.
        failures: The errors of steps that failed while the other steps continued.
        converted_sources: The source folder for each (source folder, kind) that this run has converted to another
            source kind.
        named_code: The code that the user named in this run, as records write it.
    """

    project: Project
    pool: WorkerPool
    emit: Listener
    failures: list[EdgekitError] = field(default_factory=list)
    converted_sources: dict[tuple[str, str], Path] = field(default_factory=dict)
    named_code: set[str] = field(default_factory=set)
    # By path of source.json: its (modification time, size, inode) and its contents.
    _sources: dict[Path, tuple[tuple[int, int, int], SourceModel]] = field(default_factory=dict)
    _scratch: Path | None = None

    def __post_init__(self) -> None:
        self.emit = logged(self.emit)

    def scratch(self) -> Path:
        """Return a temporary folder, in which confined workers may write; `close` removes it."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="run-", dir=self.pool.folder))
        return self._scratch

    @contextmanager
    def worker_output(self, folder: Path) -> Iterator[Path]:
        """Create a folder that a confined worker may write into, and move its files when the block ends.

        Args:
            folder: Where the files go when the block ends without an error.

        Yields:
            The folder for the worker.

        Raises:
            StepFailed: The worker left a link, or anything else than files and folders.
            InputError: The files cannot be written.
            DiskFull: There is no space left.
        """
        with tempfile.TemporaryDirectory(prefix="output-", dir=self.scratch()) as output:
            yield Path(output)
            move_files(Path(output), folder)

    def attempt(self, step: str, work: Callable[[], T], detail: Callable[[T], str]) -> T | None:
        """Run one step of several; an error is reported and recorded, so that the other steps can continue.

        Args:
            step: The step's name.
            work: Does the step.
            detail: Summarizes the result of `work` for the event.

        Returns:
            The result of `work`, or None if it raised InputError, MissingDependency or StepError.
        """
        self.emit(StartEvent(step))
        return self.settle(step, work, detail)

    def emit_overview(self, steps: Sequence[str], done: int, *, ordered: bool = True) -> None:
        """Report how many of several steps are done, and which of them run and wait.

        Args:
            steps: The names of all steps; a single one is not reported.
            done: The number of completed steps.
            ordered: Whether the steps run one after another in this order, so that the next one is the running one.
        """
        if len(steps) > 1:
            names = tuple(steps[done:]) if ordered else ()
            self.emit(OverviewEvent("", done, len(steps), names[:1], names[1:]))

    def settle(self, step: str, work: Callable[[], T], detail: Callable[[T], str]) -> T | None:
        """Do the same as `attempt` for a step whose start has already been reported."""
        try:
            with log_step(step):
                value = work()
        except (InputError, MissingDependency, StepError) as error:
            self.failures.append(error)
            self.emit(FailEvent(step, str(error), getattr(error, "stderr_tail", ""), error.parameters))
            return None
        self.emit(FinishEvent(step, detail(value)))
        return value

    def load_source(self, folder: Path) -> SourceModel:
        """Return the description of a source; the file is read again only after it has changed.

        Args:
            folder: The source folder.

        Raises:
            InputError: The file is missing or damaged.
        """
        path = folder / SOURCE_FILE
        try:
            status = path.stat()
        except OSError:
            return load_source(folder)  # raises the error that names the cause
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._sources.get(path, (None,))[0] != stamp:
            self._sources[path] = stamp, load_source(folder)
        return self._sources[path][1]

    def spec(self, model: str) -> ModelSpec:
        """Return the contents of a reference model's model.toml.

        Raises:
            InputError: There is no such model, or its model.toml is invalid.
        """
        return load_model_spec(self.project.model_folder(model))

    def close(self) -> None:
        """Remove the temporary folder."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        self.converted_sources.clear()

    def raise_failures(self) -> None:
        """Raise the most severe failure, if any; its notes list the others.

        Raises:
            EdgekitError: A step failed.
        """
        if not self.failures:
            return
        error = max(self.failures, key=lambda failure: failure.exit_code)
        for failure in self.failures:
            if failure is not error:
                error.add_note(f"also failed: {failure}")
        raise error

    @property
    def exit_code(self) -> int:
        """0, or that of the most severe failure: a crash, then a missing package, then invalid input."""
        return max((error.exit_code for error in self.failures), default=0)


def source_environment(kind: str, code: str | None = None) -> Environment:
    """Return the environment of a source kind's worker.

    Args:
        kind: The source kind.
        code: The code of the user that the worker runs, with the user's rights; None if it opens only files.

    Returns:
        A confined environment, unless code is named or the source kind cannot be confined.
    """
    plugin = SOURCES.load(kind)
    return Environment.of(plugin.variables, confined=plugin.confined and code is None)


def training_environment(kind: str) -> Environment:
    """Return the environment in which a framework trains: it uses every core unless OMP_NUM_THREADS is set."""
    threads = os.environ.get("OMP_NUM_THREADS", str(len(host_machine.available_cpus())))
    variables = {"OMP_NUM_THREADS": threads, **SOURCES.load(kind).variables}
    return Environment.of(variables, confined=False)  # the model's code is the user's


def runtime_environment(name: str) -> Environment:
    """Return the environment of a runtime's worker."""
    plugin = RUNTIMES.load(name)
    return Environment.of(plugin.variables, confined=plugin.confined)


def relative(path: Path, project: Project) -> str:
    """Return a path relative to the project's root if it is below it, otherwise without the installation's folder."""
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else portable_path(str(path))
