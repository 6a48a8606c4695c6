"""Starting, limiting and killing child processes, and telling what they died of."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from edgekit.core.errors import StepCrashed, StepError, StepOutOfMemory, StepTimedOut
from edgekit.core.units import format_memory
from edgekit.workers.environment import Environment

_TAIL_LINES = 60  # faulthandler writes some thirty of its own after a crash
_TAIL_BYTES = 64 * 1024
_HUNGRY = (
    "bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "can't allocate memory",
    "Memory allocation still failed",  # OpenBLAS, when numpy is imported
    "out of memory",
    "OutOfMemory",
)

_alive: set[Child] = set()
_alive_lock = threading.Lock()


class Child:
    """A child process in a session of its own, so that Ctrl-C reaches only its parent, and all of it can be killed.

    Its temporary files are in a folder that ends with it: TensorFlow leaves one for each function that it traces.
    """

    def __init__(self, arguments: Sequence[str], environment: Environment, *, pass_fds: Sequence[int] = ()) -> None:
        self.stderr_file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._scratch = tempfile.mkdtemp(prefix="edgekit-worker-")
        self._mark = 0
        self._stopped = False
        limits = {"cpus": environment.cpus, "memory_limit_bytes": environment.memory_limit_bytes}
        # The read end of this pipe tells the child that its parent is gone, however the parent ended.
        life_read, self._life_write = os.pipe()
        try:
            self.popen = subprocess.Popen(  # noqa: S603 - a list of our own words, no shell
                [sys.executable, "-P", "-m", "edgekit.workers._boot", str(life_read), json.dumps(limits), *arguments],
                env={**environment.child_variables(), "TMPDIR": self._scratch},
                stdin=subprocess.DEVNULL,
                stdout=self.stderr_file,
                stderr=self.stderr_file,
                pass_fds=(life_read, *pass_fds),
                start_new_session=True,
            )
        finally:
            os.close(life_read)
        with _alive_lock:
            _alive.add(self)

    def mark(self) -> None:
        """What is written to stderr from here on belongs to the next step."""
        self._mark = os.fstat(self.stderr_file.fileno()).st_size

    def stderr_tail(self) -> str:
        """The last lines since the mark."""
        size = os.fstat(self.stderr_file.fileno()).st_size
        start = max(self._mark, size - _TAIL_BYTES)
        content = os.pread(self.stderr_file.fileno(), size - start, start)
        return "\n".join(content.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])

    def waited_s(self) -> float:
        """How long its main thread has been ready to run and had no core, in seconds; 0 where Linux does not tell."""
        try:
            return int(Path(f"/proc/{self.popen.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    @property
    def alive(self) -> bool:
        """Whether it runs, and will go on: one that was stopped may take a while to end."""
        return not self._stopped and self.popen.poll() is None

    def stop(self) -> None:
        """Ends the child and whatever it started, and does not wait for it: another thread does."""
        self._stopped = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Ends the child and whatever it started; waits for it."""
        self.stop()
        self.popen.wait()
        with _alive_lock:
            if self not in _alive:
                return
            _alive.discard(self)
        os.close(self._life_write)
        self.stderr_file.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def stop_all() -> None:
    """Ends every child that is still there; the threads that wait for them find out."""
    with _alive_lock:
        children = list(_alive)
    for child in children:
        child.stop()


def death(step: str, returncode: int, stderr_tail: str, environment: Environment) -> StepError:
    """The error for a child that ended without an answer. A negative return code is the signal that ended it."""
    limit = environment.memory_limit_bytes
    hungry = any(word in stderr_tail for word in _HUNGRY)
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


def too_late(step: str, timeout_s: float, stderr_tail: str) -> StepTimedOut:
    """The error for a child that did not answer in time."""
    return StepTimedOut(f"{step}: no answer after {timeout_s:g} s; it was stopped", step=step, stderr_tail=stderr_tail)


def run_module(module: str, arguments: Sequence[str], environment: Environment, *, step: str, timeout_s: float) -> None:
    """Runs `python -m module arguments` in a fresh process with nothing else in it, to its end.

    Raises StepCrashed, StepOutOfMemory or StepTimedOut. Exit code 0 is the only good end.
    """
    child = Child([module, *arguments], environment)
    try:
        returncode = child.popen.wait(timeout_s)
        if returncode != 0:
            raise death(step, returncode, child.stderr_tail(), environment)
    except subprocess.TimeoutExpired:
        raise too_late(step, timeout_s, child.stderr_tail()) from None
    finally:
        child.kill()


class Prepared:
    """A module in a fresh process with nothing else in it, which has done what it does first and waits to go on.

    It is given two more arguments: a file descriptor to write a byte to when it is ready, and one to read a byte from
    before it goes on. `timeout_s` is for each of the two parts. Use it in a `with`: leaving it ends the process.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Environment, *, step: str, timeout_s: float
    ) -> None:
        """Returns when it is ready, or has ended: that `go` finds out. Raises StepTimedOut."""
        self._environment, self._step, self._timeout_s = environment, step, timeout_s
        self._ready, theirs = os.pipe()
        their_go, self._go = os.pipe()
        try:
            words = [module, *arguments, str(theirs), str(their_go)]
            self._child = Child(words, environment, pass_fds=(theirs, their_go))
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

    def go(self) -> None:
        """Lets it go on, to its end. Raises like `run_module`."""
        with contextlib.suppress(BrokenPipeError):  # it has ended before
            os.write(self._go, b"1")
        self._await()  # the pipe ends with the process, and tells it at once: Popen.wait looks every 50 ms
        try:
            returncode = self._child.popen.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            raise too_late(self._step, self._timeout_s, self._child.stderr_tail()) from None
        if returncode != 0:
            raise death(self._step, returncode, self._child.stderr_tail(), self._environment)

    def _await(self) -> None:
        """Waits for a byte of the process, or its end."""
        if not select.select([self._ready], [], [], self._timeout_s)[0]:
            raise too_late(self._step, self._timeout_s, self._child.stderr_tail())

    def _close_pipes(self) -> None:
        os.close(self._go)
        os.close(self._ready)

    def close(self) -> None:
        """Ends the process."""
        self._child.kill()
        self._close_pipes()

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
