"""The worker jobs that call MLflow: it imports many packages and by default retries for minutes."""

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

from edgekit.core.environment.atomic_files import os_error
from edgekit.core.environment.process_identity import has_ended, own_process
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

# Tags of a run: the digest of its content, whether its model files and its page are logged.
DIGEST, MODEL_FILES, PAGE = "edgekit.digest", "edgekit.model_files", "edgekit.page"
# The tag with host and process that writes the run, by which an interrupted run is recognized.
_WRITER = "edgekit.writer"
# MLflow's own tag for nested runs.
_PARENT = "mlflow.parentRunId"
# The time-out of the connection test in seconds; MLflow's own retries would take minutes.
_CONNECT_TIMEOUT_S = 5.0
# MLflow limits the digest of a data set to 36 characters.
_DATASET_DIGEST_CHARS = 36
# MLflow limits a batch to 1000 entries in total and 100 parameters.
_METRICS_PER_BATCH, _PARAMS_PER_BATCH = 800, 100
# MLflow's usage reports are disabled, whatever the user's environment says.
_NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# Defaults that the user's environment overrides.
_DEFAULTS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow 3 rejects folders without this
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",  # no warning where git is not installed
}


def environment() -> Environment:
    """Return the environment of the worker, in which the user's variables override edgekit's defaults."""
    variables = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    return Environment.of(variables | _NO_TELEMETRY, confined=False)  # it connects to the server that the user named


@dataclass(frozen=True)
class ExperimentRequest:
    """A request for an experiment by name, at a tracking URI."""

    uri: str
    experiment: str


@dataclass(frozen=True)
class WriteRequest:
    """A run to log into an experiment.

    Attributes:
        uri: The tracking URI.
        experiment_id: The id of the experiment.
        run: The content of the run.
        identity: The identity of the run.
        existing: The incomplete run to complete, or None.
    """

    uri: str
    experiment_id: str
    run: TrackedRun
    identity: RunIdentity
    existing: ExistingRun | None


@dataclass(frozen=True)
class MoveRequest:
    """A run to move below another parent run."""

    uri: str
    run_id: str
    parent: str


@dataclass(frozen=True)
class PageRequest:
    """Pages to log with a run.

    Attributes:
        uri: The tracking URI.
        run_id: The id of the run.
        texts: The pages by file name.
    """

    uri: str
    run_id: str
    texts: dict[str, str]


@worker_job
def read_experiment(request: ExperimentRequest, _emit: Listener) -> ExperimentState:
    """Read an experiment and edgekit's runs in it; create the experiment if it does not exist.

    Args:
        request: The experiment.

    Returns:
        The experiment and its runs.

    Raises:
        InputError: MLflow does not accept the URI, or the experiment was deleted.
        MissingDependency: A package for databases is missing.
        StepFailed: The server cannot be reached, or the store fails.
    """
    uri, experiment = request.uri, request.experiment
    _check_packages(uri)
    _check_server(uri)
    client = _open_client(uri)
    with _map_errors(uri):
        entry = client.get_experiment_by_name(experiment)
        if entry is None:
            return ExperimentState(client.create_experiment(experiment), {})
        if entry.lifecycle_stage != "active":
            raise InputError(
                f"the experiment '{experiment}' was deleted in MLflow at {display_uri(uri)};"
                " restore it or choose another name"
            )
        if uri.startswith("file:"):
            _remove_interrupted_runs(Path(display_uri(uri)) / entry.experiment_id)
        return ExperimentState(entry.experiment_id, dict(_existing_runs(client, entry.experiment_id)))


def _remove_interrupted_runs(folder: Path) -> None:
    """Remove runs whose process was killed while writing: MLflow's search fails at an empty file among theirs."""
    for digest_tag in folder.glob(f"*/tags/{DIGEST}"):
        writer = digest_tag.with_name(_WRITER)
        if digest_tag.with_name(MODEL_FILES).exists() or not writer.is_file():
            continue  # complete, since MODEL_FILES is written last, or not ours
        host, _, process = writer.read_text().rpartition(" ")
        if host == socket.gethostname() and has_ended(process):
            shutil.rmtree(digest_tag.parents[1])


@worker_job
def write_run(request: WriteRequest, _emit: Listener) -> str:
    """Log a run, or complete the existing one.

    Args:
        request: The run.

    Returns:
        The id of the run.

    Raises:
        StepFailed: The store fails.
    """
    uri, run, identity, existing = request.uri, request.run, request.identity, request.existing
    client = _open_client(uri)
    writer = f"{socket.gethostname()} {own_process()}"
    tags = {_WRITER: writer, DIGEST: identity.digest, **run.tags, **run.labels}
    if identity.parent:
        tags[_PARENT] = identity.parent
    with _map_errors(uri):
        if existing is None:
            run_id: str = client.create_run(request.experiment_id, tags=tags, run_name=run.name).info.run_id
        else:
            run_id = existing.run_id
        try:
            _log_content(client, run_id, run, () if existing is None else _logged_points(client, run_id))
            for path in (*run.files, *(run.model_files if identity.model_files else ())):
                client.log_artifact(run_id, str(path), run.folder)
            client.set_tag(run_id, MODEL_FILES, "yes" if identity.model_files else "no")
        except BaseException:
            with contextlib.suppress(Exception):  # the status is for the user; the next command completes the run
                client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
    return run_id


@worker_job
def move_run(request: MoveRequest, _emit: Listener) -> None:
    """Move a run below another parent run.

    Args:
        request: The run and its new parent.

    Raises:
        StepFailed: The store fails.
    """
    client = _open_client(request.uri)
    with _map_errors(request.uri):
        client.set_tag(request.run_id, _PARENT, request.parent)


@worker_job
def show_page(request: PageRequest, _emit: Listener) -> None:
    """Log the pages of a run.

    Args:
        request: The run and the pages.

    Raises:
        StepFailed: The store fails.
    """
    client = _open_client(request.uri)
    with _map_errors(request.uri):
        for name, text in request.texts.items():
            client.log_text(request.run_id, text, name)
        client.set_tag(request.run_id, PAGE, "yes" if request.texts else "no")


def _open_client(uri: str) -> Any:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _map_errors(uri):
        try:
            return MlflowClient(uri)
        except MlflowException as error:
            raise InputError(f"MLflow rejects the URI {display_uri(uri)}: {_first_line(error, uri)}") from None


def _check_packages(uri: str) -> None:
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in DATABASES and not (find_spec("sqlalchemy") and find_spec("alembic")):
        raise MissingDependency(
            f"MLflow in a database ({scheme}) needs the full MLflow package; run: pip install mlflow"
        )


def _check_server(uri: str) -> None:
    """Raise an error within seconds if a server cannot be reached; behind a proxy only a request can find out."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    try:
        socket.create_connection(
            (parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]), _CONNECT_TIMEOUT_S
        ).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StepFailed(f"MLflow at {display_uri(uri)} cannot be reached: {reason}; nothing was logged") from None


@contextmanager
def _map_errors(uri: str) -> Iterator[None]:
    """Map errors of MLflow and its storage to edgekit's, in one sentence without the password."""
    try:
        yield
    except EdgekitError:
        raise
    except (MemoryError, ModuleNotFoundError):
        raise  # for example a missing database driver: the worker has messages for these
    except Exception as error:
        if isinstance(error, OSError) and uri.startswith("file:"):
            raise os_error(error, Path(display_uri(uri))) from error
        raise StepFailed(f"MLflow at {display_uri(uri)}: {_first_line(error, uri)}") from error


def _first_line(error: Exception, uri: str) -> str:
    """Return the first line of an error's message, without the credentials in the URI."""
    lines = [line.strip() for line in str(error).replace(uri, display_uri(uri)).splitlines() if line.strip()]
    credentials = urlsplit(uri).netloc.rpartition("@")[0]
    line = lines[0] if lines else type(error).__name__
    line = line.replace(f"{credentials}@", "") if credentials else line
    return line if len(line) <= 300 else line[:297] + "..."


def _existing_runs(client: Any, experiment_id: str) -> Iterator[tuple[str, ExistingRun]]:
    """Yield the runs by digest; of several with the same digest the first finished one, or else the first."""
    token: str | None = None
    runs: dict[str, ExistingRun] = {}
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
            if tags[DIGEST] not in runs or (finished and not runs[tags[DIGEST]].finished):
                runs[tags[DIGEST]] = _parse_run(run)
        token = page.token
        if not token:
            yield from runs.items()
            return


def _parse_run(run: Any) -> ExistingRun:
    tags = run.data.tags
    finished = run.info.status == "FINISHED"
    return ExistingRun(run.info.run_id, finished, tags.get(_PARENT), tags.get(MODEL_FILES) == "yes", PAGE in tags)


def _logged_points(client: Any, run_id: str) -> list[tuple[str, int]]:
    """Return names and steps of the metrics that a run already has."""
    names = client.get_run(run_id).data.metrics
    return [(metric.key, metric.step) for name in names for metric in client.get_metric_history(run_id, name)]


def _log_content(client: Any, run_id: str, run: TrackedRun, logged: Sequence[tuple[str, int]]) -> None:
    """Log metrics, parameters, texts and training data; MLflow would store a metric twice if it were logged again."""
    from mlflow.entities import Metric, Param

    now_ms = time.time_ns() // 1_000_000
    missing: list[Point] = [point for point in run.metrics if (point.name, point.step) not in set(logged)]
    metrics = [Metric(point.name, point.value, now_ms, point.step) for point in missing]
    params = [Param(name, value) for name, value in run.params.items()]
    for start in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])
    for start in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
    for name, text in run.texts.items():
        client.log_text(run_id, text, name)
    if run.data is not None:
        client.log_inputs(run_id, [_dataset_input(*run.data)])


def _dataset_input(name: str, sha256: str) -> Any:
    """Return the training data for MLflow's column of data sets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name, sha256[:_DATASET_DIGEST_CHARS], "code", json.dumps({"name": name, "sha256": sha256}))
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
