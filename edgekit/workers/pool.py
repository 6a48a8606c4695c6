"""Workers kept warm within a run: importing TensorFlow costs seconds, so those of one environment are reused."""

from __future__ import annotations

import time
from multiprocessing.connection import Pipe
from types import TracebackType
from typing import Any

from edgekit.core import errors
from edgekit.core.errors import StepError
from edgekit.core.events import Listener, ignore
from edgekit.workers.environment import Environment
from edgekit.workers.process import Child, death, too_late

DEFAULT_TIMEOUT_S = 600.0


class Worker:
    """One child that serves calls, one after another."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._connection, theirs = Pipe(duplex=True)
        with theirs:
            fd = theirs.fileno()
            self._child = Child(["edgekit.workers._serve", str(fd)], environment, pass_fds=(fd,))

    def call(self, step: str, function: str, arguments: dict[str, Any], timeout_s: float, listener: Listener) -> Any:
        """The function's value. Raises what it raised, mapped; StepError when the process did not survive it."""
        self._child.mark()
        deadline = time.monotonic() + timeout_s
        try:
            self._connection.send((step, function, arguments))
            while True:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    raise too_late(step, timeout_s, self._child.stderr_tail())
                kind, payload = self._connection.recv()
                if kind == "event":
                    listener(payload)
                elif kind == "value":
                    return payload
                else:
                    raise self._error(payload)
        except (EOFError, ConnectionError):
            returncode = self._child.popen.wait()
            raise death(step, returncode, self._child.stderr_tail(), self._environment) from None

    def _error(self, payload: dict[str, Any]) -> errors.EdgekitError:
        error = errors.from_dict(payload)
        if isinstance(error, StepError) and not error.stderr_tail:
            error.stderr_tail = self._child.stderr_tail()
        return error

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._child.popen.poll() is None

    def close(self) -> None:
        """Ends the process at once: a worker holds nothing that needs a goodbye."""
        self._connection.close()
        self._child.kill()


class WorkerPool:
    """Warm workers by environment. Use it in a `with`: leaving it, also by Ctrl-C, ends them all."""

    def __init__(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._workers: dict[Environment, Worker] = {}

    def call(
        self,
        function: str,
        arguments: dict[str, Any],
        *,
        step: str,
        environment: Environment,
        timeout_s: float | None = None,
        listener: Listener = ignore,
    ) -> Any:
        """Runs `module:function(**arguments, emit=...)` in a worker of that environment.

        Arguments and value travel by pickle over a private pipe. `timeout_s` defaults to the pool's. Raises
        StepTimedOut, StepCrashed, StepOutOfMemory, StepFailed, or the EdgekitError that the function raised; a worker
        that died or hung is replaced on the next call.
        """
        worker = self._workers.get(environment)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            worker = self._workers[environment] = Worker(environment)
        try:
            return worker.call(step, function, arguments, timeout_s or self._timeout_s, listener)
        except (errors.StepTimedOut, errors.StepCrashed, errors.StepOutOfMemory, KeyboardInterrupt):
            self._workers.pop(environment).close()
            raise

    def close(self) -> None:
        """Ends all workers."""
        while self._workers:
            self._workers.popitem()[1].close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
