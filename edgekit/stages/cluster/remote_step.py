"""Executes a step in a worker process of a cluster; request and answer are plain data.

The process needs edgekit and the packages that the step names, in the versions that it names.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit._version import __version__
from edgekit.core.build.graph import Graph
from edgekit.core.environment.atomic_files import os_error, sha256_file
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.environment.project import Project
from edgekit.core.errors import EdgekitError, Interrupted, StepFailed
from edgekit.core.events import Event, Listener, ProgressEvent
from edgekit.stages.cluster.content_store import ContentStore
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import StepContext, execute_step
from edgekit.workers import scratch
from edgekit.workers.pool import WorkerPool

_log = logging.getLogger(__name__)

# Seconds that a cluster process keeps warm workers for a run without a request; they hold memory that others may need.
IDLE_S = 60.0
# Seconds between two progress events of a training; every event passes through the Dask scheduler.
_PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True)
class RemoteStep:
    """Request to execute one step of a run.

    With a store, the process works in a temporary folder to which it downloads `files`. Without one, it works in
    `root`, a folder that it shares with the host that sent the request.

    Attributes:
        run: The identifier of the run.
        step: The step, as a dictionary.
        root: The project folder, absolute.
        token: A file below `root` that proves that both hosts see the same folder.
        store: The store's URL, or an empty string.
        files: The step's inputs: path below the root -> sha256.
        timeout_s: The time limit of a worker job, in seconds.
    """

    run: str
    step: Mapping[str, Any]
    root: str
    token: str
    store: str
    files: Mapping[str, str]
    timeout_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the request as plain data."""
        return asdict(self)


def incompatibility(root: str, token: str, versions: Mapping[str, str]) -> str:
    """Explain why this process cannot execute a run's steps.

    Args:
        root: The shared project folder; empty where no folder is shared.
        token: A file below `root` that the run has created.
        versions: The package versions of the run, by distribution.

    Returns:
        The reason, as the predicate of a sentence about this worker; an empty string where it can execute them.
    """
    if root and not Path(root, token).is_file():
        return f"cannot see {root}; share that folder with the worker under the same path, or pass --store URL"
    for name, required in versions.items():
        installed = _version(name)
        if installed is None:
            return f"needs {name} {required}, but it is not installed there"
        if installed != required:
            return f"needs {name} {required}, but {installed} is installed there"
    return ""


def _version(name: str) -> str | None:
    if name in ("edgekit", "python"):
        return __version__ if name == "edgekit" else platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def execute(data: Mapping[str, Any]) -> dict[str, Any]:
    """Execute a step.

    Args:
        data: The fields of a `RemoteStep`.

    Returns:
        Plain data: `detail`, `code`, `files` (path below the root -> sha256), `seconds` (duration) and `waited_s` (the
        seconds of it without a core); or only `error`, an EdgekitError as a dictionary.
    """
    request = RemoteStep(**data)
    started = time.perf_counter()
    try:
        with _open_session(request) as session:
            return {**session.execute_step(request), "seconds": time.perf_counter() - started}
    except EdgekitError as error:
        return {"error": error.to_dict()}
    except OSError as error:
        return {"error": os_error(error, Path(request.root) / str(request.step["output"])).to_dict()}
    except Interrupted:
        return {"error": StepFailed(f"{request.step['name']} was stopped").to_dict()}
    except Exception as error:  # noqa: BLE001 - see below
        # Not raised: Dask pickles what a worker raises, and waits for ever for an exception that cannot be pickled.
        _log.exception("%s failed", request.step["name"])
        reason = f"{request.step['name']}: the Dask worker failed with {type(error).__name__}: {error}"
        return {"error": StepFailed(reason, step=str(request.step["name"])).to_dict()}


def stop(run: str) -> None:
    """Stop the steps of a run in this process and close its session.

    Args:
        run: The identifier of the run.
    """
    with _sessions_lock:  # a step may just be opening the session
        session = _sessions.pop(run, None)
    if session is not None:
        session.context.pool.stop()
        session.close()


@dataclass
class WorkerSession:
    """A project and warm workers for the steps of one run, kept until no request has come for `IDLE_S`.

    Attributes:
        context: The project and its workers.
        store: The store, or None where the project folder is shared.
        folder: The temporary project folder, or None where the project folder is shared.
        busy: The number of steps that are being executed.
        timer: Closes the session when it expires.
        fetched: The files in the temporary folder: path below the root -> sha256.
        lock: Held while files are downloaded.
    """

    context: Context
    store: ContentStore | None
    folder: tempfile.TemporaryDirectory[str] | None
    busy: int = 0
    timer: threading.Timer | None = None
    fetched: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def execute_step(self, request: RemoteStep) -> dict[str, Any]:
        """Execute the request's step and upload its files.

        Args:
            request: The request.

        Returns:
            `detail`, `code`, `files` and `waited_s` of the answer of `execute`.

        Raises:
            EdgekitError: Any error of the step.
        """
        root = self.context.project.root
        step = Graph.from_dict([request.step]).steps[0]
        self.fetch(request.files)
        output = execute_step(StepContext(self.context, Graph((step,)), step, (), _no_report))
        files = {str(path.relative_to(root)): sha256_file(path) for path in output.files}
        if self.store is not None:
            for name, digest in files.items():
                self.store.put(root / name, digest)
                self.fetched[name] = digest
        waited_s = self.context.pool.cpu_wait_s.pop(step.name, 0.0)
        return {"detail": output.detail, "code": output.code, "files": files, "waited_s": waited_s}

    def fetch(self, files: Mapping[str, str]) -> None:
        """Download the files that the temporary folder does not have in this version.

        Args:
            files: Path below the root -> sha256.

        Raises:
            StepFailed: The store does not have a file, or its copy is damaged.
            InputError: The store cannot be read, or a path leads outside the folder.
        """
        if self.store is None:
            return
        root = self.context.project.root
        with self.lock:  # two steps at once may need the same file
            for name, digest in files.items():
                path = path_inside(root, name)
                if self.fetched.get(name) != digest or not path.is_file():
                    self.store.get(digest, path)
                    self.fetched[name] = digest

    def close(self) -> None:
        """Stop the workers and remove the temporary folder."""
        self.context.pool.close()
        self.context.close()
        if self.folder is not None:
            self.folder.cleanup()


_sessions: dict[str, WorkerSession] = {}
_sessions_lock = threading.Lock()


@contextmanager
def _open_session(request: RemoteStep) -> Iterator[WorkerSession]:
    root = "" if request.store else request.root
    problem = incompatibility(root, request.token, request.step["values"].get("versions", {}))
    if problem:
        raise StepFailed(f"{request.step['name']}: {platform.node()} {problem}")
    with _sessions_lock:
        session = _sessions.get(request.run)
        if session is None:
            session = _sessions[request.run] = _new_session(request)
        session.busy += 1
        if session.timer is not None:
            session.timer.cancel()
    try:
        yield session
    finally:
        with _sessions_lock:
            session.busy -= 1
            if not session.busy and request.run in _sessions:
                session.timer = threading.Timer(IDLE_S, _close_if_idle, (request.run,))
                session.timer.daemon = True
                session.timer.start()


def _close_if_idle(run: str) -> None:
    with _sessions_lock:
        session = _sessions.get(run)
        if session is None or session.busy:
            return
        del _sessions[run]
    session.close()


def _new_session(request: RemoteStep) -> WorkerSession:
    folder = tempfile.TemporaryDirectory(prefix=scratch.prefix()) if request.store else None
    root = Path(folder.name if folder else request.root).resolve()
    store = ContentStore(request.store) if request.store else None
    context = Context(
        Project(root), WorkerPool(timeout_s=request.timeout_s, limit=_worker_limit()), _listener(request.run)
    )
    return WorkerSession(context, store, folder)


def _worker_limit() -> int:
    """The number of warm workers: more, for other environments than the current steps', would take memory from them."""
    from distributed import get_worker

    return int(get_worker().state.nthreads) + 1


def _listener(topic: str) -> Listener:
    """Return a listener that sends events to the host that started the run, and throttles a training's progress."""
    from distributed import get_worker

    worker = get_worker()
    latest: dict[str, float] = {}

    def forward(event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, ProgressEvent):
            if now - latest.get(event.step, 0.0) < _PROGRESS_EVERY_S and event.done < event.total:
                return
            latest[event.step] = now
        with contextlib.suppress(Exception):  # a lost cluster is reported by the host that started the run
            worker.log_event(topic, {"event": type(event).__name__, "fields": asdict(event)})

    return forward


def _no_report(name: str, report: object) -> str:
    raise AssertionError("reports are written where the run was started")
