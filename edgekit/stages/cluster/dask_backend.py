"""Steps of the pipeline on a Dask cluster.

Steps that measure, evaluate budgets or write reports run on this host, since a latency record names the host it was
measured on. All other steps are sent to the cluster's workers, which share the project folder or exchange files through
a store. If a worker dies, another one repeats its steps; this is safe because every step writes atomically.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType
from typing import Any

from edgekit.core import events
from edgekit.core.build.graph import Graph, Step
from edgekit.core.build.run_state import RunState
from edgekit.core.environment.atomic_files import mapped_write_errors, staged_folder
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.environment.project import shipped
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import EdgekitError, InputError, StepCrashed, StepFailed, StepTimedOut, from_dict
from edgekit.stages.cluster import remote_step
from edgekit.stages.cluster.content_store import ContentStore, is_digest
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import StepOutput

DASK = Requirement("distributed", "distributed", "dask")

# Seconds to wait for the scheduler's answer, and then for a first worker.
CONNECT_S = 15.0
# Seconds that steps wait for a new worker when none is left: time to restart a worker that died.
DESERTED_S = 60.0
# Network file systems show another host's writes only after some seconds (NFS caches attributes for 3 s by default).
_VISIBILITY_TIMEOUT_S = 10.0
# Seconds between two checks that the cluster is still there; also how long the number of slots is cached.
_POLL_S = 2.0


@dataclass
class DaskCluster:
    """Context manager for the workers of a Dask scheduler, as a backend of the step scheduler.

    Entering it raises MissingDependency, InputError (invalid address or store), StepTimedOut (no scheduler or no worker
    answers) or StepFailed (a worker cannot execute the steps).

    Attributes:
        address: The scheduler's address, such as `tcp://host:8786`.
        context: The project, the local workers and the event listener.
        graph: The graph whose steps are executed.
        state: The run's state: step records and file digests.
        store_url: The URL of the store that files are exchanged through; empty where workers share the folder.
        timeout_s: The time limit of a worker job, in seconds.
        run: The identifier of this run, unique among the runs of a cluster.
    """

    address: str
    context: Context
    graph: Graph
    state: RunState
    store_url: str = ""
    timeout_s: float = 600.0
    run: str = field(default_factory=lambda: f"edgekit-{uuid.uuid4().hex[:12]}")
    _client: Any = None
    _futures: dict[str, Any] = field(default_factory=dict)
    _deserted_since: float | None = None
    _slots: int = 1
    _slots_until: float = 0.0

    def __enter__(self) -> DaskCluster:
        require((DASK,), "--dask")
        if self.store is not None:
            self.store.probe()
        self._client = self._connect()
        try:
            if self.store is None:
                with mapped_write_errors(self._token):
                    self._token.touch()
            self._check_workers()
            self._client.subscribe_topic(self.run, self._forward_event)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        self._close()

    @cached_property
    def store(self) -> ContentStore | None:
        """The store that files are exchanged through, or None where the workers share the project folder."""
        return ContentStore(self.store_url) if self.store_url else None

    @property
    def _token(self) -> Path:
        return self.state.records.folder / f"{self.run}.token"

    @property
    def _root(self) -> Path:
        return self.context.project.root

    def _connect(self) -> Any:
        import distributed

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # its failures are raised as edgekit errors below
        try:
            distributed.comm.get_address_host(self.address)  # Client would log an invalid address again at exit
            return distributed.Client(self.address, timeout=CONNECT_S, set_as_default=False, name=self.run)
        except OSError as error:
            reason = str(error).partition("\n")[0] or "no answer"
            raise StepTimedOut(f"no Dask scheduler answers at {self.address}: {reason}", step="dask") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"'{self.address}' is not a valid Dask scheduler address: {error}") from None

    def _check_workers(self) -> None:
        """Raise StepFailed, before any step runs, if a worker cannot execute the steps."""
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise StepTimedOut(
                f"the Dask cluster at {self.address} has no workers; start one with: dask worker {self.address}",
                step="dask",
            ) from None
        versions: dict[str, str] = {}
        for step in self.graph.steps:
            if step.kind.runs_elsewhere:
                versions |= step.values.get("versions", {})
        root = "" if self.store is not None else str(self._root)
        answers = self._client.run(remote_step.incompatibility, root, self._token_name, versions, on_error="return")
        for worker, answer in answers.items():
            problem = f"cannot run edgekit: {answer}" if isinstance(answer, Exception) else answer
            if problem:
                raise StepFailed(f"the Dask worker at {worker} {problem}", step="dask")

    @property
    def _token_name(self) -> str:
        return str(self._token.relative_to(self._root))

    def slots(self) -> int:
        """Return how many steps the workers execute at a time: one per thread, refreshed after some seconds."""
        now = time.monotonic()
        if now > self._slots_until:
            with contextlib.suppress(Exception):  # `_watch` reports a lost cluster to the waiting step
                self._slots = max(1, sum(self._client.nthreads().values()))
            self._slots_until = now + _POLL_S
        return self._slots

    def takes(self, step: Step) -> bool:
        """Return whether the step is sent to the cluster.

        Steps on an emulated core stay on this host, since the emulation may not be set up on the workers. With a store,
        so do steps that read files outside the project and the installed packages: a store holds only project files.

        Args:
            step: A step of the graph.

        Returns:
            True if a worker of the cluster executes the step.
        """
        if not step.kind.runs_elsewhere or "device" in step.arguments:
            return False
        return self.store is None or not self._paths_outside(step)

    def _paths_outside(self, step: Step) -> list[str]:
        installed = (Path(sys.prefix), shipped("models"), shipped("device_profiles"))
        paths = [path for read in step.reads if (path := Path(read.path)).is_absolute()]
        return [str(path) for path in paths if not any(path.is_relative_to(folder) for folder in installed)]

    def execute_step(self, step: Step) -> StepOutput:
        """Execute the step on a worker and make its files available in the project folder.

        Args:
            step: A step that the backend takes.

        Returns:
            The step's result, with the time that it took on the worker.

        Raises:
            StepCrashed: Several workers died while executing the step, or the connection to the cluster was lost.
            StepTimedOut: The cluster has had no workers for `DESERTED_S`.
            StepFailed: The worker's files are not visible on this host.
            EdgekitError: Any error that the step raised on the worker.
        """
        files = self._upload_inputs(step) if self.store is not None else {}
        request = remote_step.RemoteStep(
            self.run,
            step.to_dict(),
            str(self._root),
            self._token_name,
            self.store_url,
            files,
            self.timeout_s,
        )
        answer = self._submit(step, request)
        if "error" in answer:
            raise from_dict(answer["error"])
        written = self._check_files(step, answer)
        if self.store is None:
            self._wait_until_visible(step, answer["files"])
        else:
            self._fetch(step, answer["files"])
        return StepOutput(answer["detail"], written, answer["code"], answer["seconds"], answer["waited_s"])

    def _check_files(self, step: Step, answer: Mapping[str, Any]) -> tuple[Path, ...]:
        """Return the paths of the files that a worker wrote; raise StepFailed for a file that the step does not write.

        The worker is another host. What it names is downloaded to this one, and `edgekit gc` removes it later.
        """
        files = answer.get("files")
        problem = "" if isinstance(files, Mapping) else "no files"
        written = []
        for name, digest in files.items() if isinstance(files, Mapping) else ():
            try:
                path = path_inside(self._root, str(name))
                if step.folder:
                    path_inside(self._root / step.folder, PurePosixPath(str(name)).relative_to(step.folder).as_posix())
            except (InputError, ValueError):  # ValueError: it is in another folder
                path = None
            if path is None or not (step.folder or str(name) == step.output):
                problem = problem or f"the file {str(name)!r}, which is not an output of this step"
            elif not is_digest(digest):
                problem = problem or f"{digest!r} as the sha256 of {name}"
            else:
                written.append(path)
        if problem:
            raise StepFailed(f"{step.name}: the Dask worker answered with {problem}", step=step.name)
        return tuple(written)

    def _submit(self, step: Step, request: remote_step.RemoteStep) -> dict[str, Any]:
        from distributed import KilledWorker

        key = f"{step.name} {self.run}"
        future = self._futures[step.name] = self._client.submit(
            remote_step.execute, request.to_dict(), key=key, pure=False
        )
        try:
            while True:
                try:
                    answer: dict[str, Any] = future.result(timeout=_POLL_S)
                    return answer
                except TimeoutError:
                    self._watch(step)
        except KilledWorker as error:
            worker = getattr(error.last_worker, "address", "")
            raise StepCrashed(
                f"{step.name}: every Dask worker that started this step died, the last one at {worker};"
                " check that the workers have enough memory",
                step=step.name,
            ) from None
        except CancelledError:
            raise self._lost(step) from None
        except EdgekitError:
            raise
        except Exception as error:
            # The client's own errors have no common base class; a dying worker can raise any of them.
            reason = f"{step.name}: the Dask cluster at {self.address} failed with {type(error).__name__}: {error}"
            raise StepCrashed(reason, step=step.name) from error
        finally:
            del self._futures[step.name]
            with contextlib.suppress(Exception):
                future.release()

    def _lost(self, step: Step) -> StepCrashed:
        return StepCrashed(f"{step.name}: lost the connection to the Dask cluster at {self.address}", step=step.name)

    def _watch(self, step: Step) -> None:
        """Raise StepCrashed if the scheduler is gone, StepTimedOut if there was no worker for some time."""
        if self._client.status != "running":
            raise self._lost(step)
        try:
            has_workers = bool(self._client.nthreads())
        except Exception:  # noqa: BLE001 - of many types while a worker dies
            return  # the client reconnects, or its status changes
        if has_workers:
            self._deserted_since = None
            return
        now = time.monotonic()
        self._deserted_since = self._deserted_since or now
        if now - self._deserted_since > DESERTED_S:
            raise StepTimedOut(f"{step.name}: the Dask cluster at {self.address} has no workers left", step=step.name)

    def _upload_inputs(self, step: Step) -> dict[str, str]:
        """Upload the files that a worker without the project folder needs for the step; return path -> sha256."""
        assert self.store is not None
        digests: dict[str, str] = {}
        for path in self._input_paths(step):
            digests |= {str(file.relative_to(self._root)): "" for file in _files_in(path)}
        for name in digests:
            digests[name] = self.state.digests.of(name)
            self.store.put(self._root / name, digests[name])
        return digests

    def _input_paths(self, step: Step) -> Iterable[Path]:
        """The files that the step reads, the outputs of the steps before it, and the folder of its model."""
        yield from (self._root / read.path for read in step.reads if not PurePath(read.path).is_absolute())
        folder = self.context.project.models().get(str(step.arguments.get("model", "")))
        if folder is not None and folder.is_relative_to(self._root):
            yield folder
        for name in self._ancestors(step):
            record = self.state.records.load(name)
            yield from (
                self._root / path for path in (record.outputs if record else ()) if not Path(path).is_absolute()
            )

    def _ancestors(self, step: Step) -> list[str]:
        waiting, ancestors = list(step.after), dict[str, None]()
        while waiting:
            name = waiting.pop()
            if name not in ancestors and name in self.graph.by_name:
                ancestors[name] = None
                waiting += self.graph.by_name[name].after
        return list(ancestors)

    def _fetch(self, step: Step, files: Mapping[str, str]) -> None:
        assert self.store is not None
        if not step.folder:
            for name, digest in files.items():
                self.store.get(digest, self._root / name)
            return
        with staged_folder(self._root / step.folder) as staging:
            for name, digest in files.items():
                self.store.get(digest, staging / PurePath(name).relative_to(step.folder))

    def _wait_until_visible(self, step: Step, files: Mapping[str, str]) -> None:
        """Wait until this host sees the shared files with the digests that the worker reported."""
        until = time.monotonic() + _VISIBILITY_TIMEOUT_S
        while different := [name for name, digest in files.items() if self.state.digests.of(name) != digest]:
            if time.monotonic() > until:
                raise StepFailed(
                    f"{step.name}: {different[0]} on this host differs from what the Dask worker wrote;"
                    f" check that {self._root} is the same shared folder on the worker",
                    step=step.name,
                )
            time.sleep(0.2)

    def _forward_event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Emit an event that a worker sent."""
        kind = getattr(events, str(event[1]["event"]), None)
        if isinstance(kind, type) and issubclass(kind, events.Event):
            self.context.emit(kind(**event[1]["fields"]))

    def stop(self) -> None:
        """Cancel the steps of this run on the workers and release the threads that wait for them."""
        with contextlib.suppress(Exception):
            self._client.cancel(list(self._futures.values()), asynchronous=False, force=True)
            self._client.run(remote_step.stop, self.run, on_error="ignore", wait=False)

    def _close(self) -> None:
        self._token.unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)


def _files_in(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return [path] if path.is_file() else []
