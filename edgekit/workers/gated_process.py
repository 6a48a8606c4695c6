"""Processes that prepare themselves, report that they are ready, and wait to be released."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Sequence
from types import TracebackType

from edgekit.workers.environment import Environment
from edgekit.workers.process import Child, Process, timeout_error, wait_checked

# Starts a process with words and file descriptors. Each word that is None is replaced by the number of the next
# descriptor: a fork receives its descriptors over a socket, where they get other numbers.
Start = Callable[[Sequence[str | None], Sequence[int]], Process]


def fresh_process(module: str, environment: Environment) -> Start:
    """Return a function that starts a module in a fresh Python process.

    Args:
        module: The dotted name of the module, which is run as `__main__`.
        environment: Variables, cores and memory limit of the process.
    """

    def start(words: Sequence[str | None], fds: Sequence[int]) -> Process:
        numbers = iter(fds)
        return Child(
            [module, *(str(next(numbers)) if word is None else word for word in words)], environment, pass_fds=fds
        )

    return start


class GatedProcess:
    """A process that has prepared itself and waits to be released.

    Its last two arguments are the numbers of file descriptors: it writes one byte to the first when it is ready, and
    reads one byte from the second before it continues. Use it in a `with` block: leaving the block ends the process.
    """

    def __init__(
        self, start: Start, words: Sequence[str], environment: Environment, *, step: str, timeout_s: float
    ) -> None:
        """Start the process and wait until it is ready, or has ended; `release` then raises why it has ended.

        Args:
            start: Starts the process, such as what `fresh_process` returns.
            words: The arguments of the process, before the two descriptors.
            environment: The environment of the process, for its error messages.
            step: The step's name, for error messages.
            timeout_s: The limit in seconds for getting ready, and again for the part after `release`.

        Raises:
            StepTimedOut: The process was not ready in time.
        """
        self._environment, self._step, self._timeout_s = environment, step, timeout_s
        self._ready, child_ready = os.pipe()
        child_go, self._go = os.pipe()
        try:
            self._process = start([*words, None, None], (child_ready, child_go))
        except BaseException:
            self._close_pipes()
            raise
        finally:
            # The ready pipe reports the end of the process only when nobody else holds its write end.
            os.close(child_ready)
            os.close(child_go)
        try:
            self._await_ready_or_exit()
            # Take the byte out of the pipe, so that the next select() waits for the end of the process.
            os.read(self._ready, 1)
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        """Let the process continue, and wait until it has ended.

        Raises:
            StepCrashed: It ended with an error.
            StepOutOfMemory: It ran out of memory.
            StepTimedOut: It did not end in time.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended already: wait_checked raises why
            os.write(self._go, b"1")
        # Popen.wait() with a time-out polls every 50 ms; the pipe wakes this process at once.
        self._await_ready_or_exit()
        wait_checked(self._process, self._environment, step=self._step, timeout_s=self._timeout_s)

    def _await_ready_or_exit(self) -> None:
        """Wait for a byte from the process, or for its end. Raises StepTimedOut."""
        if not select.select([self._ready], [], [], self._timeout_s)[0]:
            raise timeout_error(self._step, self._timeout_s, self._process.stderr_tail())

    def _close_pipes(self) -> None:
        os.close(self._go)
        os.close(self._ready)

    def close(self) -> None:
        """End the process and close its pipes."""
        # Kill first: a process that waits at its gate would take a closed pipe for its release.
        self._process.kill()
        self._close_pipes()

    def __enter__(self) -> GatedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
