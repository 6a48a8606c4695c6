"""Processes that get ready, and wait to be told to go on."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Sequence
from types import TracebackType

from edgekit.workers.environment import Environment
from edgekit.workers.process import Child, Process, timeout_error, wait_checked

Start = Callable[[Sequence[str | None], Sequence[int]], Process]
"""Starts a process with these words, of which None stands for the number of the next of these file descriptors."""


def fresh_process(module: str, environment: Environment) -> Start:
    """A module in a process with nothing else in it."""

    def start(words: Sequence[str | None], fds: Sequence[int]) -> Process:
        numbers = iter(fds)
        return Child(
            [module, *(str(next(numbers)) if word is None else word for word in words)], environment, pass_fds=fds
        )

    return start


class GatedProcess:
    """A process which has done what it does first and waits to go on.

    It is given two more words: a file descriptor to write a byte to when it is ready, and one to read a byte from
    before it goes on. `timeout_s` is for each of the two parts. Use it in a `with`: leaving it ends the process.
    """

    def __init__(
        self, start: Start, words: Sequence[str], environment: Environment, *, step: str, timeout_s: float
    ) -> None:
        """Returns when it is ready, or has ended: that `go` finds out. Raises StepTimedOut."""
        self._environment, self._step, self._timeout_s = environment, step, timeout_s
        self._ready, theirs = os.pipe()
        their_go, self._go = os.pipe()
        try:
            self._process = start([*words, None, None], (theirs, their_go))
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(theirs)
            os.close(their_go)
        try:
            self._await()
            os.read(self._ready, 1)
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        """Lets it go on, to its end. Raises StepCrashed, StepOutOfMemory or StepTimedOut."""
        with contextlib.suppress(BrokenPipeError):  # it has ended before
            os.write(self._go, b"1")
        self._await()  # the pipe ends with the process, and tells it at once: Popen.wait looks every 50 ms
        wait_checked(self._process, self._environment, step=self._step, timeout_s=self._timeout_s)

    def _await(self) -> None:
        """Waits for a byte of the process, or its end."""
        if not select.select([self._ready], [], [], self._timeout_s)[0]:
            raise timeout_error(self._step, self._timeout_s, self._process.stderr_tail())

    def _close_pipes(self) -> None:
        os.close(self._go)
        os.close(self._ready)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._close_pipes()

    def __enter__(self) -> GatedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
