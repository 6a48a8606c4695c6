"""What talks to MLflow, in a worker of its own: it imports much, and retries for minutes unless it is told not to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from edgekit.core.environment.atomic_files import alive, os_error
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepFailed
from edgekit.core.events import Listener
from edgekit.stages.tracking.settings import (
    DATABASES,
    ExistingRun,
    ExperimentState,
    Point,
    RunIdentity,
    TrackedRun,
    display_uri,
)
from edgekit.workers.environment import Environment
from edgekit.workers.job import worker_job

DIGEST, MODEL_FILES, PAGE = "edgekit.digest", "edgekit.model_files", "edgekit.page"
_WRITER = "edgekit.writer"
_PARENT = "mlflow.parentRunId"
_CONNECT_S = 5.0
_DATA_DIGEST = 36  # characters that MLflow has room for
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 800, 100
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Nobody asked MLflow to tell its makers what it is used for."""
_DEFAULTS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow 3 refuses folders, which it no longer extends, unless it is told to
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",  # git need not be installed
}


def environment() -> Environment:
    """The worker's: what the user set goes before edgekit's own choice."""
    return Environment.of({name: os.environ.get(name, value) for name, value in _DEFAULTS.items()} | _QUIET)


@dataclass(frozen=True)
class ExperimentRequest:
    """An experiment by name, at a tracking URI."""

    uri: str
    experiment: str


@dataclass(frozen=True)
class WriteRequest:
    """A run to log into an experiment; `existing` is the incomplete run that it completes, or None."""

    uri: str
    experiment_id: str
    run: TrackedRun
    identity: RunIdentity
    existing: ExistingRun | None


@dataclass(frozen=True)
class MoveRequest:
    """A run to put below another one."""

    uri: str
    run_id: str
    parent: str


@dataclass(frozen=True)
class PageRequest:
    """Texts by file name to log with a run: the pages made from the runs below it."""

    uri: str
    run_id: str
    texts: dict[str, str]


@worker_job
def read_experiment(request: ExperimentRequest, _emit: Listener) -> ExperimentState:
    """Return the experiment, created where there is none, and edgekit's runs in it.

    Raises InputError for a URI that MLflow does not take, MissingDependency for a database without its packages, and
    StepFailed where nobody answers or the store refuses.
    """
    uri, experiment = request.uri, request.experiment
    _check_packages(uri)
    _check_server(uri)
    client = _client(uri)
    with _told(uri):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return ExperimentState(client.create_experiment(experiment), {})
        if found.lifecycle_stage != "active":
            raise InputError(
                f"the experiment '{experiment}' was deleted in MLflow at {display_uri(uri)}:"
                " restore it, or name another one"
            )
        if uri.startswith("file:"):
            _sweep(Path(display_uri(uri)) / found.experiment_id)
        return ExperimentState(found.experiment_id, dict(_runs(client, found.experiment_id)))


def _sweep(folder: Path) -> None:
    """Removes runs whose process was killed while it wrote them: an empty file among theirs stops MLflow's search."""
    for mark in folder.glob(f"*/tags/{DIGEST}"):
        writer = mark.with_name(_WRITER)
        if mark.with_name(MODEL_FILES).exists() or not writer.is_file():
            continue  # MODEL_FILES is written last
        host, _, process = writer.read_text().rpartition(" ")
        if host == socket.gethostname() and process.isdigit() and not alive(int(process)):
            shutil.rmtree(mark.parents[1])


@worker_job
def write_run(request: WriteRequest, _emit: Listener) -> str:
    """Log a run, or complete the existing one, and return its id. Raises StepFailed where the store refuses."""
    uri, run, marks, seen = request.uri, request.run, request.identity, request.existing
    client = _client(uri)
    writer = f"{socket.gethostname()} {os.getpid()}"
    tags = {_WRITER: writer, DIGEST: marks.digest, **run.tags, **run.labels}
    if marks.parent:
        tags[_PARENT] = marks.parent
    with _told(uri):
        if seen is None:
            run_id: str = client.create_run(request.experiment_id, tags=tags, run_name=run.name).info.run_id
        else:
            run_id = seen.run_id
        try:
            _log(client, run_id, run, () if seen is None else _points(client, run_id))
            for path in (*run.files, *(run.model_files if marks.model_files else ())):
                client.log_artifact(run_id, str(path), run.folder)
            client.set_tag(run_id, MODEL_FILES, "yes" if marks.model_files else "no")
        except BaseException:
            with contextlib.suppress(Exception):  # the next time completes it, whatever MLflow calls it till then
                client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
    return run_id


@worker_job
def move_run(request: MoveRequest, _emit: Listener) -> None:
    """Put a run below another one."""
    client = _client(request.uri)
    with _told(request.uri):
        client.set_tag(request.run_id, _PARENT, request.parent)


@worker_job
def show_page(request: PageRequest, _emit: Listener) -> None:
    """Log the pages of a run."""
    client = _client(request.uri)
    with _told(request.uri):
        for name, text in request.texts.items():
            client.log_text(request.run_id, text, name)
        client.set_tag(request.run_id, PAGE, "yes" if request.texts else "no")


def _client(uri: str) -> Any:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _told(uri):
        try:
            return MlflowClient(uri)
        except MlflowException as error:
            raise InputError(f"MLflow does not take {display_uri(uri)}: {_sentence(error, uri)}") from None


def _check_packages(uri: str) -> None:
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in DATABASES and not (find_spec("sqlalchemy") and find_spec("alembic")):
        raise MissingDependency(
            f"MLflow in a database ({scheme}) needs all of MLflow; install it with: pip install mlflow"
        )


def _check_server(uri: str) -> None:
    """Finds out in seconds that nobody is there; behind a proxy only a request can tell."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    try:
        socket.create_connection(
            (parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]), _CONNECT_S
        ).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StepFailed(f"MLflow at {display_uri(uri)} cannot be reached: {reason}; nothing was logged") from None


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Errors of MLflow and of what it stores with become one sentence that holds no password."""
    try:
        yield
    except EdgekitError:
        raise
    except (MemoryError, ModuleNotFoundError):
        raise  # a package that the store needs: the worker knows sentences for these
    except Exception as error:
        if isinstance(error, OSError) and uri.startswith("file:"):
            raise os_error(error, Path(display_uri(uri))) from error
        raise StepFailed(f"MLflow at {display_uri(uri)}: {_sentence(error, uri)}") from error


def _sentence(error: Exception, uri: str) -> str:
    """The first line, without what the URI says that must not be told."""
    lines = [line.strip() for line in str(error).replace(uri, display_uri(uri)).splitlines() if line.strip()]
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    line = lines[0] if lines else type(error).__name__
    line = line.replace(f"{secret}@", "") if secret else line
    return line if len(line) <= 300 else line[:297] + "..."


def _runs(client: Any, experiment_id: str) -> Iterator[tuple[str, ExistingRun]]:
    """By digest; of several that are the same, a finished one, and of these the first."""
    token: str | None = None
    found: dict[str, ExistingRun] = {}
    while True:
        page = client.search_runs(
            [experiment_id],
            f"tags.`{DIGEST}` != ''",
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        for run in page:
            tags = run.data.tags
            finished = run.info.status == "FINISHED"
            if tags[DIGEST] not in found or (finished and not found[tags[DIGEST]].finished):
                found[tags[DIGEST]] = _seen(run)
        token = page.token
        if not token:
            yield from found.items()
            return


def _seen(run: Any) -> ExistingRun:
    tags = run.data.tags
    finished = run.info.status == "FINISHED"
    return ExistingRun(run.info.run_id, finished, tags.get(_PARENT), tags.get(MODEL_FILES) == "yes", PAGE in tags)


def _points(client: Any, run_id: str) -> list[tuple[str, int]]:
    """Names and steps of the metrics that a run has."""
    names = client.get_run(run_id).data.metrics
    return [(item.key, item.step) for name in names for item in client.get_metric_history(run_id, name)]


def _log(client: Any, run_id: str, run: TrackedRun, there: Sequence[tuple[str, int]]) -> None:
    from mlflow.entities import Metric, Param

    now_ms = time.time_ns() // 1_000_000
    missing: list[Point] = [item for item in run.metrics if (item.name, item.step) not in set(there)]
    metrics = [Metric(item.name, item.value, now_ms, item.step) for item in missing]
    params = [Param(name, value) for name, value in run.params.items()]
    for start in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])
    for start in range(0, len(params), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
    for name, text in run.texts.items():
        client.log_text(run_id, text, name)
    if run.data is not None:
        client.log_inputs(run_id, [_data(*run.data)])


def _data(name: str, sha256: str) -> Any:
    """The training data, for MLflow's own column of data sets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name, sha256[:_DATA_DIGEST], "code", json.dumps({"name": name, "sha256": sha256}))
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
