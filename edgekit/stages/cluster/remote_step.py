"""A step done elsewhere: what a process of a cluster is handed, and what it hands back. Plain data both ways.

The process needs nothing but edgekit and the packages that the step names, in the versions that it names.
"""

from __future__ import annotations

import contextlib
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
from edgekit.core.environment.project import Project
from edgekit.core.errors import EdgekitError, Interrupted, StepFailed
from edgekit.core.events import Event, Listener, Progress
from edgekit.stages.cluster.content_store import ContentStore
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import StepContext, execute_step
from edgekit.workers.pool import WorkerPool

IDLE_S = 60.0
"""How long a process of the cluster keeps warm workers for a run that asks it for nothing."""
_PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True)
class RemoteStep:
    """A step of a run.

    With a `store` (a URL) the process works in a folder of its own, to which it fetches `files` (path below the root ->
    sha256); without one it works in `root`, which it shares with whoever sent the errand: `token` is a file that stands
    there.
    """

    run: str
    step: Mapping[str, Any]
    root: str
    token: str
    store: str
    files: Mapping[str, str]
    timeout_s: float

    def to_dict(self) -> dict[str, Any]:
        """What travels."""
        return asdict(self)


def incompatibility(root: str, token: str, versions: Mapping[str, str]) -> str:
    """Why a step cannot be done in this process; nothing when it can. `root` is empty where no folder is shared."""
    if root and not Path(root, token).is_file():
        return f"does not see {root}: share that folder with it under the same path, or name a store (--store)"
    for name, wanted in versions.items():
        found = _version(name)
        if found != wanted:
            return f"has {name} {found or 'not at all'} where this run has {wanted}"
    return ""


def _version(name: str) -> str | None:
    if name in ("edgekit", "python"):
        return __version__ if name == "edgekit" else platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def execute(data: Mapping[str, Any]) -> dict[str, Any]:
    """Carries out an errand: `detail`, `code`, `files` (path below the root -> sha256), `seconds` that it took, of
    which `waited_s` without a core; or `error`."""
    errand = RemoteStep(**data)
    started = time.perf_counter()
    try:
        with _place(errand) as place:
            return {**place.execute_step(errand), "seconds": time.perf_counter() - started}
    except EdgekitError as error:
        return {"error": error.to_dict()}
    except OSError as error:
        return {"error": os_error(error, Path(errand.root) / str(errand.step["output"])).to_dict()}
    except Interrupted:
        return {"error": StepFailed(f"{errand.step['name']} was stopped").to_dict()}


def stop(run: str) -> None:
    """Ends what is done for the run in this process."""
    place = _places.pop(run, None)
    if place is not None:
        place.context.pool.stop()
        place.close()


@dataclass
class WorkerSession:
    """Where the errands of one run are done: a project and warm workers, for as long as errands come."""

    context: Context
    store: ContentStore | None
    folder: tempfile.TemporaryDirectory[str] | None
    busy: int = 0
    timer: threading.Timer | None = None
    fetched: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def execute_step(self, errand: RemoteStep) -> dict[str, Any]:
        root = self.context.project.root
        step = Graph.from_dict([errand.step]).steps[0]
        self.fetch(errand.files)
        done = execute_step(StepContext(self.context, Graph((step,)), step, (), _no_report))
        files = {str(path.relative_to(root)): sha256_file(path) for path in done.files}
        if self.store is not None:
            for name, digest in files.items():
                self.store.put(root / name, digest)
                self.fetched[name] = digest
        waited_s = self.context.pool.cpu_wait_s.pop(step.name, 0.0)
        return {"detail": done.detail, "code": done.code, "files": files, "waited_s": waited_s}

    def fetch(self, files: Mapping[str, str]) -> None:
        """What is not here already. Nothing is left over from other errands that the step could take for its own."""
        if self.store is None:
            return
        root = self.context.project.root
        with self.lock:  # two errands at once may need the same file
            for name, digest in files.items():
                if self.fetched.get(name) != digest or not (root / name).is_file():
                    self.store.get(digest, root / name)
                    self.fetched[name] = digest

    def close(self) -> None:
        self.context.pool.close()
        self.context.close()
        if self.folder is not None:
            self.folder.cleanup()


_places: dict[str, WorkerSession] = {}
_places_lock = threading.Lock()


@contextmanager
def _place(errand: RemoteStep) -> Iterator[WorkerSession]:
    root = "" if errand.store else errand.root
    problem = incompatibility(root, errand.token, errand.step["values"].get("versions", {}))
    if problem:
        raise StepFailed(f"{errand.step['name']}: {platform.node()} {problem}")
    with _places_lock:
        place = _places.get(errand.run)
        if place is None:
            place = _places[errand.run] = _made(errand)
        place.busy += 1
        if place.timer is not None:
            place.timer.cancel()
    try:
        yield place
    finally:
        with _places_lock:
            place.busy -= 1
            if not place.busy and errand.run in _places:
                place.timer = threading.Timer(IDLE_S, _end, (errand.run,))
                place.timer.daemon = True
                place.timer.start()


def _end(run: str) -> None:
    with _places_lock:
        place = _places.get(run)
        if place is None or place.busy:
            return
        del _places[run]
    place.close()


def _made(errand: RemoteStep) -> WorkerSession:
    folder = tempfile.TemporaryDirectory(prefix="edgekit-errand-") if errand.store else None
    root = Path(folder.name if folder else errand.root).resolve()
    store = ContentStore(errand.store) if errand.store else None
    context = Context(Project(root), WorkerPool(timeout_s=errand.timeout_s, limit=_limit()), _listener(errand.run))
    return WorkerSession(context, store, folder)


def _limit() -> int:
    """Warm workers of other environments than the current step's would take the memory that it needs."""
    from distributed import get_worker

    return int(get_worker().state.nthreads) + 1


def _listener(topic: str) -> Listener:
    """Sends events to whoever started the run; of a training's progress only some."""
    from distributed import get_worker

    worker = get_worker()
    latest: dict[str, float] = {}

    def tell(event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Progress):
            if now - latest.get(event.step, 0.0) < _PROGRESS_EVERY_S and event.done < event.total:
                return
            latest[event.step] = now
        with contextlib.suppress(Exception):  # a cluster that is going down is told of elsewhere
            worker.log_event(topic, {"event": type(event).__name__, "fields": asdict(event)})

    return tell


def _no_report(name: str, report: object) -> str:
    raise AssertionError("reports are written where the run was started")
