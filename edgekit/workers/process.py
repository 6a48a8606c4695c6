"""Starting, limiting and killing child processes, and telling what they died of."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from edgekit.core.errors import StepCrashed, StepError, StepOutOfMemory, StepTimedOut
from edgekit.core.units import format_memory
from edgekit.workers.environment import Environment

_TAIL_LINES = 60  # faulthandler writes some thirty of its own after a crash
_TAIL_BYTES = 64 * 1024
_OOM_MARKERS = (
    "bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "can't allocate memory",
    "Memory allocation still failed",  # OpenBLAS, when numpy is imported
    "out of memory",
    "OutOfMemory",
)

_alive: set[Process] = set()
_alive_lock = threading.Lock()


class Process(ABC):
    """A process in a session of its own, so that Ctrl-C reaches only its parent, and all of it can be killed.

    Its temporary files are in a folder that ends with it: TensorFlow leaves one for each function that it traces. It
    ends when the pipe does that tells of its parent's life, however the parent ended.
    """

    def __init__(self) -> None:
        self.stderr_file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._scratch = tempfile.mkdtemp(prefix="edgekit-worker-")
        self._mark = 0
        self.stopped = False
        """Whether somebody here ended it."""
        self._life_read, self._life_write = os.pipe()

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """From the end of the block on it runs, and has to be ended; where that fails, nothing is left of it."""
        try:
            yield
        except BaseException:
            self._close()
            raise
        finally:
            os.close(self._life_read)
        with _alive_lock:
            _alive.add(self)

    @property
    @abstractmethod
    def pid(self) -> int:
        """That of its session, too."""

    @abstractmethod
    def _ended(self) -> bool:
        """Whether it has: then its number may be another's."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> int:
        """Its return code, once it has ended; that of a signal is negative. Raises TimeoutError."""

    def mark(self) -> None:
        """What is written to stderr from here on belongs to the next step."""
        self._mark = os.fstat(self.stderr_file.fileno()).st_size

    def stderr_tail(self) -> str:
        """The last lines since the mark."""
        size = os.fstat(self.stderr_file.fileno()).st_size
        start = max(self._mark, size - _TAIL_BYTES)
        content = os.pread(self.stderr_file.fileno(), size - start, start)
        return "\n".join(content.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])

    def cpu_wait_s(self) -> float:
        """How long its main thread has been ready to run and had no core, in seconds; 0 where Linux does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    @property
    def alive(self) -> bool:
        """Whether it runs, and will go on: one that was stopped may take a while to end."""
        return not self.stopped and not self._ended()

    def stop(self) -> None:
        """Ends the process and whatever it started, and does not wait for it: another thread does."""
        self.stopped = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Ends the process and whatever it started; waits for it."""
        self.stop()
        self.wait()
        with _alive_lock:
            if self not in _alive:
                return
            _alive.discard(self)
        self._close()

    def _close(self) -> None:
        """Gives back what belongs to it."""
        os.close(self._life_write)
        self.stderr_file.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


class Child(Process):
    """One that was started anew."""

    def __init__(self, arguments: Sequence[str], environment: Environment, *, pass_fds: Sequence[int] = ()) -> None:
        super().__init__()
        limits = json.dumps(environment.limits)
        words = [sys.executable, "-P", "-m", "edgekit.workers._bootstrap", str(self._life_read), limits]
        with self._starting():
            self.popen = subprocess.Popen(  # noqa: S603 - a list of our own words, no shell
                [*words, *arguments],
                env={**environment.child_variables(), "TMPDIR": self._scratch},
                stdin=subprocess.DEVNULL,
                stdout=self.stderr_file,
                stderr=self.stderr_file,
                pass_fds=(self._life_read, *pass_fds),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def _ended(self) -> bool:
        return self.popen.poll() is not None

    def wait(self, timeout_s: float | None = None) -> int:
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None


def stop_all() -> None:
    """Ends every child that is still there; the threads that wait for them find out."""
    with _alive_lock:
        children = list(_alive)
    for child in children:
        child.stop()


def exit_error(step: str, returncode: int, stderr_tail: str, environment: Environment) -> StepError:
    """The error for a child that ended without an answer. A negative return code is the signal that ended it."""
    limit = environment.memory_limit_bytes
    hungry = any(word in stderr_tail for word in _OOM_MARKERS)
    if returncode == -signal.SIGKILL:
        return StepOutOfMemory(
            f"{step}: its process was killed (SIGKILL), most likely because memory ran out",
            step=step,
            stderr_tail=stderr_tail,
        )
    if hungry:
        allowed = "" if limit is None else f" (it was allowed {format_memory(limit)})"
        return StepOutOfMemory(f"{step}: its process ran out of memory{allowed}", step=step, stderr_tail=stderr_tail)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return StepCrashed(f"{step}: its process crashed with {name}", step=step, stderr_tail=stderr_tail, signal=name)
    message = f"{step}: its process ended with exit code {returncode} and no answer"
    return StepCrashed(message, step=step, stderr_tail=stderr_tail)


def timeout_error(step: str, timeout_s: float, stderr_tail: str) -> StepTimedOut:
    """The error for a child that did not answer in time."""
    return StepTimedOut(f"{step}: no answer after {timeout_s:g} s; it was stopped", step=step, stderr_tail=stderr_tail)


def wait_checked(child: Process, environment: Environment, *, step: str, timeout_s: float) -> None:
    """Waits for a child's end, of which exit code 0 is the only good one.

    Raises StepCrashed, StepOutOfMemory or StepTimedOut.
    """
    try:
        returncode = child.wait(timeout_s)
    except TimeoutError:
        raise timeout_error(step, timeout_s, child.stderr_tail()) from None
    if returncode != 0:
        raise exit_error(step, returncode, child.stderr_tail(), environment)


def run_module(module: str, arguments: Sequence[str], environment: Environment, *, step: str, timeout_s: float) -> None:
    """Runs `python -m module arguments` in a fresh process with nothing else in it, to its end.

    Raises like `to_its_end`.
    """
    child = Child([module, *arguments], environment)
    try:
        wait_checked(child, environment, step=step, timeout_s=timeout_s)
    finally:
        child.kill()
