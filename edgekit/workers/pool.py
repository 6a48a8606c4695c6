"""A pool of worker processes that are reused within a run, since importing TensorFlow takes seconds."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

from edgekit.core import errors, logs
from edgekit.core.environment.bounded_files import available_memory_bytes
from edgekit.core.errors import StepError
from edgekit.core.events import Listener, LogEvent, ignore
from edgekit.workers import answers, requests, scratch
from edgekit.workers.environment import Environment
from edgekit.workers.fork_server import ForkServerPool
from edgekit.workers.job import Answer, Request, WorkerJob
from edgekit.workers.process import Child, exit_error, timeout_error

_log = logging.getLogger(__name__)

# Minutes above what conversions of the reference models take; a hang still ends within a CI job's limit.
DEFAULT_TIMEOUT_S = 600.0

# What converters of small models take; less would fail them on a machine whose memory is full of caches.
MIN_MEMORY_BYTES = 4 * 1024**3

# After these the worker is dead or hangs; after any other error of edgekit it serves the next call.
_FATAL_ERRORS = (errors.StepTimedOut, errors.StepCrashed, errors.StepOutOfMemory)


class Resource(Protocol):
    """What is closed with a pool."""

    def close(self) -> None:
        """Close it; no call waits for it any more."""


ResourceType = TypeVar("ResourceType", bound=Resource)


class Worker:
    """A process that serves calls, one after another.

    Attributes:
        affinity_key: The key of its last call, such as the source model that it has loaded.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.affinity_key = ""
        self._connection, child_connection = Pipe(duplex=True)
        # Closed here after the start: else the pipe would not end when the worker dies.
        with child_connection:
            fd = child_connection.fileno()
            self._child = Child(["edgekit.workers._worker_main", str(fd)], environment, pass_fds=(fd,))

    def call(
        self,
        step: str,
        job: WorkerJob[Request, Answer],
        request: Request,
        timeout_s: float,
        listener: Listener,
    ) -> Answer:
        """Run a job in the worker and wait for its answer.

        Args:
            step: The step's name, for error messages.
            job: The job.
            request: Its request.
            timeout_s: The limit in seconds for the whole call.
            listener: Receives the events that the job emits.

        Returns:
            The job's answer.

        Raises:
            EdgekitError: What the job raised, mapped to edgekit's error tree.
            StepTimedOut: The job did not return in time.
            StepCrashed: The process ended during the call.
            StepOutOfMemory: The process was killed for its memory, or ran out of it.
        """
        self._child.mark()
        # Events do not extend the time-out: a function that reports progress may hang all the same.
        deadline = time.monotonic() + timeout_s
        try:
            requests.send(self._connection, (step, job.name, request, logs.effective_level()), self.pid)
            while True:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    raise timeout_error(step, timeout_s, self._child.stderr_tail())
                kind, payload = answers.loads(self._connection.recv_bytes())
                if kind == "event" and isinstance(payload, LogEvent):
                    logs.replay(payload)
                elif kind == "event":
                    listener(payload)
                elif kind == "value":
                    answer: Answer = payload
                    return answer
                else:
                    raise self._error(payload)
        except (EOFError, ConnectionError):
            # The pipe ends before the process: only its return code says what it died of.
            returncode = self._child.wait()
            raise exit_error(step, returncode, self._child.stderr_tail(), self._environment) from None

    def _error(self, payload: dict[str, Any]) -> errors.EdgekitError:
        error = errors.from_dict(payload)
        if isinstance(error, StepError) and not error.stderr_tail:
            error.stderr_tail = self._child.stderr_tail()
        return error

    def cpu_wait_s(self) -> float:
        """Return the CPU wait: the time in seconds that the process was ready to run but had no core."""
        return self._child.cpu_wait_s()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs and was not stopped."""
        return self._child.alive

    def stop(self) -> None:
        """Kill the process without waiting; a call in another thread then raises."""
        self._child.stop()

    def close(self) -> None:
        """Kill the process and wait until it has ended: a worker keeps nothing that needs cleaning up."""
        self._connection.close()
        self._child.kill()


class WorkerPool:
    """Idle workers by environment. Use it in a `with` block: leaving the block, also by Ctrl-C, ends all workers.

    Threads may call at the same time: each call has a worker of its own, an idle one if there is one.

    Attributes:
        fork_servers: The fork servers of this run.
        cpu_wait_s: Step -> the time in seconds that its calls were ready to run while other processes had all cores.
    """

    def __init__(self, *, timeout_s: float = DEFAULT_TIMEOUT_S, limit: int | None = None) -> None:
        """Create an empty pool.

        Args:
            timeout_s: The default limit in seconds of a call.
            limit: The number of workers from which on idle ones of other environments are ended; None for no limit.
        """
        # For the Python API; a command has done it at its start.
        scratch.collect_once()
        self._timeout_s = timeout_s
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[tuple[Environment, Worker]] = []  # in the order of their last use
        self._busy: set[Worker] = set()
        self._stopped = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._resources: dict[Hashable, Resource] = {}
        self.fork_servers = ForkServerPool()
        self.cpu_wait_s: dict[str, float] = {}

    def call(
        self,
        job: WorkerJob[Request, Answer],
        request: Request,
        *,
        step: str,
        environment: Environment,
        timeout_s: float | None = None,
        listener: Listener = ignore,
        affinity_key: str = "",
    ) -> Answer:
        """Run a job in a worker.

        Request and answer are pickled and sent over a private pipe. A worker that died or hung is replaced at the next
        call.

        Args:
            job: The job, a function marked with `@worker_job`.
            request: Its request.
            step: The step's name, for error messages and `cpu_wait_s`.
            environment: The environment of the worker.
            timeout_s: The limit in seconds; None for the pool's.
            listener: Receives the events that the job emits.
            affinity_key: Names what the call loads. An idle worker whose last call had the same key is preferred,
                because it has that loaded already.

        Returns:
            The job's answer.

        Raises:
            StepTimedOut: The job did not return in time.
            StepCrashed: The process ended during the call.
            StepOutOfMemory: The process was killed for its memory, or ran out of it.
            StepFailed: The job raised an exception that is not edgekit's.
            EdgekitError: The job raised it.
            Interrupted: The pool was stopped.
        """
        with logs.log_step(step):
            worker = self._acquire(environment, affinity_key)
            _log.debug("worker %d runs %s", worker.pid, job.name)
        before_s = worker.cpu_wait_s()
        try:
            answer = worker.call(step, job, request, timeout_s or self._timeout_s, listener)
        except BaseException as error:
            if isinstance(error, errors.EdgekitError) and not isinstance(error, _FATAL_ERRORS):
                self._release(environment, worker)
                raise
            _log.info("worker %d ended: %s", worker.pid, type(error).__name__, extra={"step": step})
            # Also after Ctrl-C: the worker would still send the answer to the interrupted call.
            self._discard(worker)
            if self._stopped:
                raise errors.Interrupted("stopped") from None
            raise
        self.cpu_wait_s[step] = self.cpu_wait_s.get(step, 0.0) + worker.cpu_wait_s() - before_s
        self._release(environment, worker)
        return answer

    def resource(self, key: Hashable, create: Callable[[], ResourceType]) -> ResourceType:
        """Return what belongs to this run, such as a connection, and is closed with the pool.

        Args:
            key: Names the resource.
            create: Called by the first call with this key.

        Returns:
            The resource, the same for all calls with this key.

        Raises:
            Interrupted: The pool was stopped.
        """
        with self._lock:
            if self._stopped:
                raise errors.Interrupted("stopped")
            if key not in self._resources:
                self._resources[key] = create()
            return cast(ResourceType, self._resources[key])

    @property
    def folder(self) -> Path:
        """The folder of the pool, into which confined workers may write; it is removed when the pool is closed."""
        with self._lock:
            return self._folder_path()

    def _folder_path(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix=scratch.prefix())
        return Path(self._folder.name)

    def _acquire(self, environment: Environment, affinity_key: str) -> Worker:
        """Return an idle worker of the environment: one with the same key, else the last used; else a new worker."""
        with self._lock:
            if self._stopped:
                raise errors.Interrupted("stopped")
            candidates = [worker for idle_environment, worker in self._idle if idle_environment == environment]
            # The sort is stable: among workers of the same key the last used one stays last, and pop() takes it.
            candidates.sort(key=lambda worker: bool(affinity_key) and worker.affinity_key == affinity_key)
            discarded = []
            while candidates:
                worker = candidates.pop()
                self._idle.remove((environment, worker))
                # It may have been stopped, or killed for its memory, since its last call.
                if worker.alive:
                    worker.affinity_key = affinity_key
                    self._busy.add(worker)
                    _log.info("worker %d is used again", worker.pid)
                    return worker
                discarded.append(worker)
            # Each idle worker keeps a framework in memory, some hundreds of MiB: end the one that was idle longest.
            while self._limit is not None and self._idle and len(self._idle) + len(self._busy) >= self._limit:
                discarded.append(self._idle.pop(0)[1])
            for worker in discarded:
                _log.info("worker %d ended: %s", worker.pid, "too many are idle" if worker.alive else "it was stopped")
                worker.close()
            worker = Worker(self._bounded(environment))
            _log.info("worker %d started%s", worker.pid, environment.described)
            worker.affinity_key = affinity_key
            self._busy.add(worker)
            return worker

    def _bounded(self, environment: Environment) -> Environment:
        """Return the environment with this pool's folder, and with a memory limit where it has none of its own."""
        writable = (*environment.writable, str(self._folder_path()))
        limit = environment.memory_limit_bytes
        if limit is None and environment.confined:
            # A file that claims terabytes ends its own worker, not what the kernel picks when memory runs out.
            limit = max(MIN_MEMORY_BYTES, available_memory_bytes())
        return replace(environment, writable=writable, memory_limit_bytes=limit)

    def _release(self, environment: Environment, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            self._idle.append((environment, worker))

    def _discard(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
        worker.close()

    def stop(self) -> None:
        """Kill the busy workers. Their calls, in other threads, raise Interrupted, and so do new calls."""
        with self._lock:
            self._stopped = True
            for worker in self._busy:
                worker.stop()

    def close_resources(self) -> None:
        """Close what `resource` has created."""
        with self._lock:
            resources = list(self._resources.values())
            self._resources.clear()
        for resource in resources:
            resource.close()

    def close(self) -> None:
        """End all workers and fork servers, and close resources."""
        self.close_resources()
        with self._lock:
            workers = [*(worker for _, worker in self._idle), *self._busy]
            self._idle.clear()
            self._busy.clear()
        for worker in workers:
            _log.info("worker %d ended: the command is done", worker.pid)
            worker.close()
        self.fork_servers.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
