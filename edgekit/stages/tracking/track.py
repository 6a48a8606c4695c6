"""The track stage: logs the contents of a report into MLflow, without duplicates."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from edgekit._version import __version__
from edgekit.core.environment.requirements import require
from edgekit.core.errors import MissingDependency
from edgekit.core.events import NoteEvent, ProgressEvent
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.records.source import SourceModel
from edgekit.stages.context import Context
from edgekit.stages.tracking import mlflow_job
from edgekit.stages.tracking.mlflow_job import (
    ExperimentRequest,
    MoveRequest,
    PageRequest,
    WriteRequest,
    move_run,
    read_experiment,
    show_page,
    write_run,
)
from edgekit.stages.tracking.mlflow_mapping import artifact_run, source_run
from edgekit.stages.tracking.settings import (
    MLFLOW,
    STEP_NAME,
    ExperimentState,
    LoggedRun,
    RunIdentity,
    TrackedRun,
    Tracking,
    TrackingResult,
    display_uri,
)
from edgekit.workers.job import WorkerJob

T = TypeVar("T")
A = TypeVar("A")

# The file name of the HTML report in a run; MLflow shows it in the run's artifacts.
PAGE = "report.html"
# Renders a report in a format given by name.
Render = Callable[[str, Report], str]


def track(context: Context, report: Report, destination: Tracking, render: Render) -> TrackingResult:
    """Log one run for each source model, and below it one for each artifact.

    A complete run with the same content is not logged again, and an interrupted one is completed.

    Args:
        context: The project and its workers.
        report: The report.
        destination: Where to log.
        render: Renders the report as an HTML page.

    Returns:
        The experiment and its runs.

    Raises:
        InputError: The URI or the experiment cannot be used, or a model file is damaged.
        MissingDependency: MLflow is not installed.
        StepError: The server or store fails; runs that were logged before remain.
    """
    require((MLFLOW,), "tracking in MLflow")
    store = _Store(context, destination.uri)
    state = store.call(read_experiment, ExperimentRequest(destination.uri, destination.experiment))
    tracker = _Tracker(store, report, destination, render, state, _labels(context.project.root))
    for (model, kind), rows in _groups(report):
        tracker.log_group(model, kind, rows)
    return TrackingResult(
        display_uri(destination.uri), destination.experiment, state.experiment_id, tuple(tracker.logged)
    )


@dataclass(frozen=True)
class _Store:
    """A connection to MLflow, in a worker."""

    context: Context
    uri: str

    def call(self, job: WorkerJob[T, A], request: T) -> A:
        """Run a job of `mlflow_job`."""
        return self.context.pool.call(job, request, step=STEP_NAME, environment=mlflow_job.environment())


@dataclass
class _Tracker:
    store: _Store
    report: Report
    destination: Tracking
    render: Render
    state: ExperimentState
    labels: Mapping[str, str]
    logged: list[LoggedRun] = field(default_factory=list)

    def log_group(self, model: str, kind: str, rows: list[ReportRow]) -> None:
        """Log a source model and its artifacts, then its report page if anything changed."""
        source = _find_source(self.report, model, kind)
        model_run = source_run(model, kind, source, rows[0])
        parent = self._log(model_run, None)
        entries = [parent]
        for row in rows:
            entries.append(self._log(artifact_run(row, source, model_run.digest), parent.run_id, row))
        existing = self.state.runs.get(model_run.digest)
        if existing is None or not existing.has_page or any(entry.state != "there" for entry in entries):
            page = self._page(replace(self.report, rows=tuple(rows), sources=(source,) if source else (), changes=None))
            self.store.call(show_page, PageRequest(self.store.uri, parent.run_id, page))

    def _log(self, run: TrackedRun, parent: str | None, row: ReportRow | None = None) -> LoggedRun:
        """Log a run unless a complete one with the same content exists."""
        digest = run.digest
        existing = self.state.runs.get(digest)
        with_files = self.destination.model_files and bool(run.model_files)
        if existing is not None and existing.finished and (existing.has_model_files or not with_files):
            if parent is not None and existing.parent != parent:  # its former parent was deleted
                self.store.call(move_run, MoveRequest(self.store.uri, existing.run_id, parent))
            entry = LoggedRun(run.name, existing.run_id, "there")
        else:
            if row is not None and with_files:
                row.artifact.verified_path()
            identity = RunIdentity(digest, parent, with_files)
            labelled = replace(run, labels=self.labels)
            request = WriteRequest(self.store.uri, self.state.experiment_id, labelled, identity, existing)
            run_id = self.store.call(write_run, request)
            entry = LoggedRun(run.name, run_id, "new" if existing is None else "completed")
        self.logged.append(entry)
        self.store.context.emit(ProgressEvent(STEP_NAME, len(self.logged), self._run_count()))
        return entry

    def _run_count(self) -> int:
        return len(self.report.rows) + len({_source_key(row) for row in self.report.rows})

    def _page(self, report: Report) -> dict[str, str]:
        """Return the rendered report by file name; empty, with a note, if a package for it is missing."""
        try:
            return {PAGE: self.render("html", report)}
        except MissingDependency as error:
            self.store.context.emit(NoteEvent(STEP_NAME, f"{PAGE} is not logged: {error}"))
            return {}


def _source_key(row: ReportRow) -> tuple[str, str]:
    return row.artifact.manifest.model, row.artifact.manifest.source["kind"]


def _groups(report: Report) -> Iterator[tuple[tuple[str, str], list[ReportRow]]]:
    """Yield the rows of each source model."""
    for key in dict.fromkeys(map(_source_key, report.rows)):
        yield key, [row for row in report.rows if _source_key(row) == key]


def _find_source(report: Report, model: str, kind: str) -> SourceModel | None:
    return next((source for source in report.sources if (source.name, source.kind) == (model, kind)), None)


def _labels(root: Path) -> dict[str, str]:
    """Return the tags with user, version and commit, which MLflow shows in columns of their own."""
    labels = {"edgekit.version": __version__, "mlflow.source.name": "edgekit", "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # the user of a container may have no name
        labels["mlflow.user"] = getpass.getuser()
    commit = _read_commit(root)
    return labels | ({"mlflow.source.git.commit": commit} if commit else {})


def _read_commit(root: Path) -> str:
    """Return the hash of the current git commit; empty without git or a repository."""
    git = shutil.which("git")
    if git is None:
        return ""
    process = subprocess.run(  # noqa: S603 - constant arguments, no shell
        [git, "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, text=True, check=False
    )
    return process.stdout.strip() if process.returncode == 0 else ""
