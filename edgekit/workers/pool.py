"""Workers kept warm within a run: importing TensorFlow costs seconds, so those of one environment are reused."""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Pipe
from types import TracebackType
from typing import Any

from edgekit.core import errors
from edgekit.core.errors import StepError
from edgekit.core.events import Listener, ignore
from edgekit.workers.environment import Environment
from edgekit.workers.fork_server import ForkServerPool
from edgekit.workers.process import Child, exit_error, timeout_error

DEFAULT_TIMEOUT_S = 600.0


class Worker:
    """One child that serves calls, one after another."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.affinity_key = ""
        """What its last call was about."""
        self._connection, theirs = Pipe(duplex=True)
        with theirs:
            fd = theirs.fileno()
            self._child = Child(["edgekit.workers._worker_main", str(fd)], environment, pass_fds=(fd,))

    def call(self, step: str, function: str, arguments: dict[str, Any], timeout_s: float, listener: Listener) -> Any:
        """The function's value. Raises what it raised, mapped; StepError when the process did not survive it."""
        self._child.mark()
        deadline = time.monotonic() + timeout_s
        try:
            self._connection.send((step, function, arguments))
            while True:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    raise timeout_error(step, timeout_s, self._child.stderr_tail())
                kind, payload = self._connection.recv()
                if kind == "event":
                    listener(payload)
                elif kind == "value":
                    return payload
                else:
                    raise self._error(payload)
        except (EOFError, ConnectionError):
            returncode = self._child.wait()
            raise exit_error(step, returncode, self._child.stderr_tail(), self._environment) from None

    def _error(self, payload: dict[str, Any]) -> errors.EdgekitError:
        error = errors.from_dict(payload)
        if isinstance(error, StepError) and not error.stderr_tail:
            error.stderr_tail = self._child.stderr_tail()
        return error

    def cpu_wait_s(self) -> float:
        """How long it has been ready to run and had no core, in seconds."""
        return self._child.cpu_wait_s()

    @property
    def alive(self) -> bool:
        """Whether the process runs, and nobody has stopped it."""
        return self._child.alive

    def stop(self) -> None:
        """Kills the process and lets whoever waits for it find out."""
        self._child.stop()

    def close(self) -> None:
        """Ends the process at once: a worker holds nothing that needs a goodbye."""
        self._connection.close()
        self._child.kill()


class WorkerPool:
    """Warm workers by environment. Use it in a `with`: leaving it, also by Ctrl-C, ends them all.

    Threads may call at the same time: each call has a worker to itself, one that waits if there is one. `limit` is how
    many workers there may be before those that wait in another environment are ended.
    """

    def __init__(self, *, timeout_s: float = DEFAULT_TIMEOUT_S, limit: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[tuple[Environment, Worker]] = []  # the one that was used last is the last
        self._busy: set[Worker] = set()
        self._stopped = False
        self.fork_servers = ForkServerPool()
        self.cpu_wait_s: dict[str, float] = {}
        """Step -> how long its calls waited for a core that another process had, in seconds."""

    def call(
        self,
        function: str,
        arguments: dict[str, Any],
        *,
        step: str,
        environment: Environment,
        timeout_s: float | None = None,
        listener: Listener = ignore,
        affinity_key: str = "",
    ) -> Any:
        """Runs `module:function(**arguments, emit=...)` in a worker of that environment, if it can be in the one whose
        last call was `about` the same: it has that loaded.

        Arguments and value travel by pickle over a private pipe. `timeout_s` defaults to the pool's. Raises
        StepTimedOut, StepCrashed, StepOutOfMemory, StepFailed, or the EdgekitError that the function raised; a worker
        that died or hung is replaced on the next call. Interrupted when the pool was stopped.
        """
        worker = self._take(environment, affinity_key)
        before_s = worker.cpu_wait_s()
        try:
            value = worker.call(step, function, arguments, timeout_s or self._timeout_s, listener)
        except BaseException as error:
            fatal = (errors.StepTimedOut, errors.StepCrashed, errors.StepOutOfMemory)
            if isinstance(error, errors.EdgekitError) and not isinstance(error, fatal):
                self._give_back(environment, worker)
                raise
            self._drop(worker)
            if self._stopped:
                raise errors.Interrupted("stopped") from None
            raise
        self.cpu_wait_s[step] = self.cpu_wait_s.get(step, 0.0) + worker.cpu_wait_s() - before_s
        self._give_back(environment, worker)
        return value

    def _take(self, environment: Environment, affinity_key: str) -> Worker:
        """A worker that waits in this environment, first one that knows what it is about, then the last used; else a
        new one."""
        with self._lock:
            if self._stopped:
                raise errors.Interrupted("stopped")
            fitting = [item for item in self._idle if item[0] == environment]
            fitting.sort(key=lambda item: bool(affinity_key) and item[1].affinity_key == affinity_key)
            superfluous = []
            while fitting:
                chosen = fitting.pop()
                self._idle.remove(chosen)
                if chosen[1].alive:
                    chosen[1].affinity_key = affinity_key
                    self._busy.add(chosen[1])
                    return chosen[1]
                superfluous.append(chosen[1])
            while self._limit is not None and self._idle and len(self._idle) + len(self._busy) >= self._limit:
                superfluous.append(self._idle.pop(0)[1])
            for worker in superfluous:
                worker.close()
            worker = Worker(environment)
            worker.affinity_key = affinity_key
            self._busy.add(worker)
            return worker

    def _give_back(self, environment: Environment, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            self._idle.append((environment, worker))

    def _drop(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
        worker.close()

    def stop(self) -> None:
        """Kills what runs, for other threads that wait for it: their calls raise Interrupted, and so do new ones."""
        with self._lock:
            self._stopped = True
            for worker in self._busy:
                worker.stop()

    def close(self) -> None:
        """Ends all workers."""
        with self._lock:
            workers = [*(worker for _, worker in self._idle), *self._busy]
            self._idle.clear()
            self._busy.clear()
        for worker in workers:
            worker.close()
        self.fork_servers.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
