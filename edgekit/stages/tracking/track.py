"""The track stage: everything that a report knows into MLflow, once."""

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
from edgekit.core.events import Noted, Progress
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

PAGE = "report.html"
Render = Callable[[str, Report], str]


def track(context: Context, report: Report, chosen: Tracking, render: Render) -> TrackingResult:
    """One run for each model in its framework, and below it one for each artifact.

    A run with the same content that is there is left alone, one that was cut short is completed. Raises InputError,
    MissingDependency and StepError; what was logged by then is there the next time.
    """
    require((MLFLOW,), "tracking in MLflow")
    store = _Store(context, chosen.uri)
    known = store.call(read_experiment, ExperimentRequest(chosen.uri, chosen.experiment))
    tracker = _Tracker(store, report, chosen, render, known, _labels(context.project.root))
    for (model, kind), rows in _groups(report):
        tracker.group(model, kind, rows)
    return TrackingResult(display_uri(chosen.uri), chosen.experiment, known.experiment_id, tuple(tracker.logged))


@dataclass(frozen=True)
class _Store:
    """MLflow, in a worker."""

    context: Context
    uri: str

    def call(self, job: WorkerJob[T, A], request: T) -> A:
        """Run a job of `mlflow_job`."""
        return self.context.pool.call(job, request, step=STEP_NAME, environment=mlflow_job.environment())


@dataclass
class _Tracker:
    store: _Store
    report: Report
    chosen: Tracking
    render: Render
    known: ExperimentState
    labels: Mapping[str, str]
    logged: list[LoggedRun] = field(default_factory=list)

    def group(self, model: str, kind: str, rows: list[ReportRow]) -> None:
        """A model in its framework, and its artifacts."""
        source = _source(self.report, model, kind)
        above = source_run(model, kind, source, rows[0])
        parent = self._log(above, None)
        entries = [parent]
        for row in rows:
            entries.append(self._log(artifact_run(row, source, above.digest), parent.run_id, row))
        seen = self.known.runs.get(above.digest)
        if seen is None or not seen.has_page or any(entry.state != "there" for entry in entries):
            page = self._page(replace(self.report, rows=tuple(rows), sources=(source,) if source else (), changes=None))
            self.store.call(show_page, PageRequest(self.store.uri, parent.run_id, page))

    def _log(self, run: TrackedRun, parent: str | None, row: ReportRow | None = None) -> LoggedRun:
        digest = run.digest
        seen = self.known.runs.get(digest)
        with_files = self.chosen.model_files and bool(run.model_files)
        if seen is not None and seen.finished and (seen.has_model_files or not with_files):
            if parent is not None and seen.parent != parent:  # the one that it was below is gone
                self.store.call(move_run, MoveRequest(self.store.uri, seen.run_id, parent))
            entry = LoggedRun(run.name, seen.run_id, "there")
        else:
            if row is not None and with_files:
                row.artifact.verified_path()
            identity = RunIdentity(digest, parent, with_files)
            labelled = replace(run, labels=self.labels)
            request = WriteRequest(self.store.uri, self.known.experiment_id, labelled, identity, seen)
            run_id = self.store.call(write_run, request)
            entry = LoggedRun(run.name, run_id, "new" if seen is None else "completed")
        self.logged.append(entry)
        self.store.context.emit(Progress(STEP_NAME, len(self.logged), self._total()))
        return entry

    def _total(self) -> int:
        return len(self.report.rows) + len({_subject(row) for row in self.report.rows})

    def _page(self, report: Report) -> dict[str, str]:
        """The model's report as a page, which MLflow shows."""
        try:
            return {PAGE: self.render("html", report)}
        except MissingDependency as error:
            self.store.context.emit(Noted(STEP_NAME, f"without {PAGE}: {error}"))
            return {}


def _subject(row: ReportRow) -> tuple[str, str]:
    return row.artifact.manifest.model, row.artifact.manifest.source["kind"]


def _groups(report: Report) -> Iterator[tuple[tuple[str, str], list[ReportRow]]]:
    """The rows of each model in its framework."""
    for subject in dict.fromkeys(map(_subject, report.rows)):
        yield subject, [row for row in report.rows if _subject(row) == subject]


def _source(report: Report, model: str, kind: str) -> SourceModel | None:
    return next((item for item in report.sources if (item.name, item.kind) == (model, kind)), None)


def _labels(root: Path) -> dict[str, str]:
    """Who logs this, with what, from which commit: MLflow shows these in columns of their own."""
    found = {"edgekit.version": __version__, "mlflow.source.name": "edgekit", "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        found["mlflow.user"] = getpass.getuser()
    commit = _commit(root)
    return found | ({"mlflow.source.git.commit": commit} if commit else {})


def _commit(root: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run(  # noqa: S603 - a list of our own words, no shell
        [git, "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""
