"""Steps of the pipeline on a Dask cluster.

What measures, judges and reports stays here: a latency belongs to the host that its record names. The others are sent
to the cluster's workers, which share this project's folder or pass files through a store. A worker that dies has its
steps done again by another: each writes all or nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

from edgekit.core import events
from edgekit.core.build.graph import Graph, Step
from edgekit.core.build.run_state import RunState
from edgekit.core.environment.atomic_files import mapped_write_errors, staged_folder
from edgekit.core.environment.project import shipped
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError, StepCrashed, StepFailed, StepTimedOut, from_dict
from edgekit.stages.cluster import remote_step
from edgekit.stages.cluster.content_store import ContentStore
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import StepOutput

DASK = Requirement("distributed", "distributed", "dask")

CONNECT_S = 15.0
DESERTED_S = 60.0
"""How long steps wait for a worker to come when there is none left."""
_SEEN_S = 10.0  # network file systems show what another host wrote after some seconds
_POLL_S = 2.0


@dataclass
class DaskCluster:
    """A Dask scheduler and its workers. Use it in a `with`.

    Entering raises MissingDependency, InputError (an address or a store that is none), StepTimedOut or StepFailed (no
    scheduler, no worker, or one that cannot do these steps).
    """

    address: str
    context: Context
    graph: Graph
    book: RunState
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
        self._client = self._connected()
        try:
            if self.store is None:
                with mapped_write_errors(self._token):
                    self._token.touch()
            self._look_at_workers()
            self._client.subscribe_topic(self.run, self._heard)
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
        """Where files are passed on; None where the workers share the folder."""
        return ContentStore(self.store_url) if self.store_url else None

    @property
    def _token(self) -> Path:
        return self.book.records.folder / f"{self.run}.token"

    @property
    def _root(self) -> Path:
        return self.context.project.root

    def _connected(self) -> Any:
        import distributed

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it would say is said in our own sentences
        try:
            distributed.comm.get_address_host(self.address)  # a client that fails on it complains once more at its end
            return distributed.Client(self.address, timeout=CONNECT_S, set_as_default=False, name=self.run)
        except OSError as error:
            reason = str(error).partition("\n")[0] or "no answer"
            raise StepTimedOut(f"no Dask scheduler answers at {self.address}: {reason}", step="dask") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"'{self.address}' is no address of a Dask scheduler: {error}") from None

    def _look_at_workers(self) -> None:
        """Refuses, before anything is done, workers that could not do it."""
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise StepTimedOut(f"the Dask cluster at {self.address} has no workers", step="dask") from None
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
        """How many steps the workers take at a time: one for each of their threads. Asked anew after some seconds."""
        now = time.monotonic()
        if now > self._slots_until:
            with contextlib.suppress(OSError, TimeoutError):  # whoever waits for a step finds out what is wrong
                self._slots = max(1, sum(self._client.nthreads().values()))
            self._slots_until = now + _POLL_S
        return self._slots

    def takes(self, step: Step) -> bool:
        """Whether the step is sent. A store passes on what lies below the root; what is installed is there already.

        Emulated cores are set up here, and perhaps not where the workers are.
        """
        if not step.kind.runs_elsewhere or "device" in step.arguments:
            return False
        return self.store is None or not self._outside(step)

    def _outside(self, step: Step) -> list[str]:
        installed = (Path(sys.prefix), shipped("models"), shipped("device_profiles"))
        found = [path for read in step.reads if (path := Path(read.path)).is_absolute()]
        return [str(path) for path in found if not any(path.is_relative_to(folder) for folder in installed)]

    def execute_step(self, step: Step) -> StepOutput:
        """Has the step done by a worker; its files stand in the project when it returns.

        Raises what the step raised there; StepCrashed when it took several workers down, or the cluster is lost.
        """
        files = self._sent(step) if self.store is not None else {}
        errand = remote_step.RemoteStep(
            self.run,
            asdict(step),
            str(self._root),
            self._token_name,
            self.store_url,
            files,
            self.timeout_s,
        )
        answer = self._answer(step, errand)
        if "error" in answer:
            raise from_dict(answer["error"])
        written = tuple(self._root / name for name in answer["files"])
        if self.store is None:
            self._seen(step, answer["files"])
        else:
            self._fetch(step, answer["files"])
        return StepOutput(answer["detail"], written, answer["code"], answer["seconds"], answer["waited_s"])

    def _answer(self, step: Step, errand: remote_step.RemoteStep) -> dict[str, Any]:
        from distributed import KilledWorker

        key = f"{step.name} {self.run}"
        future = self._futures[step.name] = self._client.submit(
            remote_step.execute, errand.to_dict(), key=key, pure=False
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
                f"{step.name}: each Dask worker that began it died, at last {worker}: is there too little memory?",
                step=step.name,
            ) from None
        except CancelledError:
            raise StepCrashed(f"{step.name}: the Dask cluster at {self.address} was lost", step=step.name) from None
        finally:
            del self._futures[step.name]
            with contextlib.suppress(Exception):
                future.release()

    def _watch(self, step: Step) -> None:
        """Raises when the scheduler is gone, or no worker has been there for some time."""
        if self._client.status != "running":
            raise StepCrashed(f"{step.name}: the Dask cluster at {self.address} was lost", step=step.name)
        try:
            there = bool(self._client.nthreads())
        except (OSError, TimeoutError):
            return  # it reconnects, or gives up and says so in its status
        if there:
            self._deserted_since = None
            return
        now = time.monotonic()
        self._deserted_since = self._deserted_since or now
        if now - self._deserted_since > DESERTED_S:
            raise StepTimedOut(f"{step.name}: the Dask cluster at {self.address} has no workers left", step=step.name)

    def _sent(self, step: Step) -> dict[str, str]:
        """Puts into the store what a process that starts with nothing needs for the step."""
        assert self.store is not None
        found: dict[str, str] = {}
        for path in self._needed(step):
            found |= {str(item.relative_to(self._root)): "" for item in _files_in(path)}
        for name in found:
            found[name] = self.book.digests.of(name)
            self.store.put(self._root / name, found[name])
        return found

    def _needed(self, step: Step) -> Iterable[Path]:
        """What the step reads, what those before it wrote, and the folder of its model."""
        yield from (self._root / read.path for read in step.reads if not PurePath(read.path).is_absolute())
        folder = self.context.project.models().get(str(step.arguments.get("model", "")))
        if folder is not None and folder.is_relative_to(self._root):
            yield folder
        for name in self._before(step):
            record = self.book.records.load(name)
            yield from (
                self._root / path for path in (record.outputs if record else ()) if not Path(path).is_absolute()
            )

    def _before(self, step: Step) -> list[str]:
        waiting, found = list(step.after), dict[str, None]()
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.graph.by_name:
                found[name] = None
                waiting += self.graph.by_name[name].after
        return list(found)

    def _fetch(self, step: Step, files: Mapping[str, str]) -> None:
        assert self.store is not None
        if not step.folder:
            for name, digest in files.items():
                self.store.get(digest, self._root / name)
            return
        with staged_folder(self._root / step.folder) as staging:
            for name, digest in files.items():
                self.store.get(digest, staging / PurePath(name).relative_to(step.folder))

    def _seen(self, step: Step, files: Mapping[str, str]) -> None:
        """Waits until what the worker wrote is seen here as it wrote it."""
        until = time.monotonic() + _SEEN_S
        while different := [name for name, digest in files.items() if self.book.digests.of(name) != digest]:
            if time.monotonic() > until:
                raise StepFailed(
                    f"{step.name}: {different[0]} is not here as the Dask worker wrote it: is {self._root} the same"
                    " folder there?",
                    step=step.name,
                )
            time.sleep(0.2)

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Passes on what a worker told."""
        kind: Callable[..., events.Event] = getattr(events, event[1]["event"])
        self.context.emit(kind(**event[1]["fields"]))

    def stop(self) -> None:
        """Ends what the workers do for this run, and what waits for them."""
        with contextlib.suppress(Exception):
            self._client.cancel(list(self._futures.values()), asynchronous=False, force=True)
            self._client.run(remote_step.stop, self.run, on_error="ignore", wait=False)

    def _close(self) -> None:
        self._token.unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)


def _files_in(path: Path) -> list[Path]:
    if path.is_dir():
        return [item for item in path.rglob("*") if item.is_file() and "__pycache__" not in item.parts]
    return [path] if path.is_file() else []
