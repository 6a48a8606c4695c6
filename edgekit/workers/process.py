"""Child processes: start, limit and kill them, and turn the way they ended into a typed error."""

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
from edgekit.workers import scratch
from edgekit.workers.environment import Environment

# faulthandler alone writes some 30 lines after a crash; as many again show what the process did before.
_TAIL_LINES = 60

_TAIL_BYTES = 64 * 1024

# Texts by which native libraries say that memory ran out. They abort, so that no exception and no exit code says it.
_OOM_MARKERS = (
    "bad_alloc",  # C++ standard library: TensorFlow, PyTorch
    "MemoryError",
    "Cannot allocate memory",
    "can't allocate memory",
    "Memory allocation still failed",  # OpenBLAS, while numpy is imported
    "out of memory",
    "OutOfMemory",
)

# All processes that run, for `stop_all`: Ctrl-C reaches only this process, since each child has its own session.
_running: set[Process] = set()
_running_lock = threading.Lock()


class Process(ABC):
    """A process in a session of its own, so that Ctrl-C reaches only its parent and its whole group can be killed.

    It has its own folder for temporary files, which is removed with it. It ends when its liveness pipe is closed, which
    the kernel does however the parent ends.

    Attributes:
        stderr_file: The unnamed file that stdout and stderr of the process are written to.
        stopped: Whether this process has ended it.
    """

    def __init__(self) -> None:
        # A file and not a pipe: a pipe that nobody drains would block a process that writes more than 64 KiB.
        self.stderr_file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        # TensorFlow leaves a temporary file for each function that it traces.
        self._scratch = scratch.create()
        self._mark = 0
        self.stopped = False
        self._group_killed = False
        self._liveness_read, self._liveness_write = os.pipe()

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Register the process when the block has started it; release everything when the block raises."""
        try:
            yield
        except BaseException:
            self._close()
            raise
        finally:
            os.close(self._liveness_read)
        with _running_lock:
            _running.add(self)

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process id, which is also the id of its session and group."""

    @abstractmethod
    def _ended(self) -> bool:
        """Return whether the process has ended, after which its id may belong to another process."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the process has ended.

        Args:
            timeout_s: The limit in seconds, or None to wait for ever.

        Returns:
            The exit code; the negative signal number when a signal ended the process.

        Raises:
            TimeoutError: The process still runs after `timeout_s`.
        """

    def mark(self) -> None:
        """Start a new step: `stderr_tail` returns only what is written from here on."""
        self._mark = os.fstat(self.stderr_file.fileno()).st_size

    def stderr_tail(self) -> str:
        """Return the last 60 lines of stdout and stderr since the mark."""
        size = os.fstat(self.stderr_file.fileno()).st_size
        start = max(self._mark, size - _TAIL_BYTES)
        # pread(): the child shares the file's offset, and a seek would make it overwrite its own output.
        content = os.pread(self.stderr_file.fileno(), size - start, start)
        return "\n".join(content.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])

    def cpu_wait_s(self) -> float:
        """Return the time in seconds that the main thread was ready to run but had no core; 0 where it is unknown."""
        try:
            # /proc/PID/schedstat: time on the CPU, time in the run queue (both in ns), and the number of time slices.
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    @property
    def alive(self) -> bool:
        """Whether the process runs and was not stopped: a stopped process may take a while to end."""
        return not self.stopped and not self._ended()

    def stop(self) -> None:
        """Kill the process and everything that it started, without waiting: the thread that waits for it reaps it."""
        self.stopped = True
        self._kill_group()

    def _kill_group(self) -> None:
        """Kill the process and everything that it started, once.

        Subclasses call this as soon as the process was reaped: from then on its id may become that of another process.
        """
        with _running_lock:
            if self._group_killed:
                return
            self._group_killed = True
        # SIGKILL: a worker keeps nothing that needs cleaning up, and native code may never return to handle SIGTERM.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process and everything that it started, wait until it has ended, and release its files."""
        self.stop()
        self.wait()
        # Two threads may kill the same process; a descriptor closed twice could be another file's by then.
        with _running_lock:
            if self not in _running:
                return
            _running.discard(self)
        self._close()

    def _close(self) -> None:
        """Close the descriptors of the process and remove its temporary files."""
        os.close(self._liveness_write)
        self.stderr_file.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


class PopenProcess(Process):
    """A process that `subprocess` has started.

    Attributes:
        popen: The process; subclasses start it.
    """

    popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def _ended(self) -> bool:
        if self.popen.poll() is None:
            return False
        self._kill_group()
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        try:
            returncode = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        self._kill_group()
        return returncode


class PipedProcess(PopenProcess):
    """A program with pipes to its stdin and stdout, in a session of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the program.

        Args:
            command: The program and its arguments; no shell reads them.
        """
        super().__init__()
        with self._starting():
            self.popen = subprocess.Popen(  # noqa: S603 - a list of words, no shell on this host
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr_file,
                start_new_session=True,
                bufsize=0,
            )

    def _close(self) -> None:
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        super()._close()


class Child(PopenProcess):
    """A process of a fresh Python interpreter."""

    def __init__(self, arguments: Sequence[str], environment: Environment, *, pass_fds: Sequence[int] = ()) -> None:
        """Start the process.

        Args:
            arguments: A module's dotted name and its arguments.
            environment: Variables, cores and memory limit.
            pass_fds: File descriptors that the process inherits under the same numbers.
        """
        super().__init__()
        limits = json.dumps(environment.limits([self._scratch]))
        # -P: the current folder is not put on sys.path, where a user's `torch.py` would hide the real package.
        command = [sys.executable, "-P", "-m", "edgekit.workers._bootstrap", str(self._liveness_read), limits]
        with self._starting():
            self.popen = subprocess.Popen(  # noqa: S603 - a list of edgekit's own words, no shell
                [*command, *arguments],
                env={**environment.child_variables(), "TMPDIR": self._scratch},
                stdin=subprocess.DEVNULL,
                stdout=self.stderr_file,
                stderr=self.stderr_file,
                # The write end of the liveness pipe is not among them: a child that held it would keep itself alive.
                pass_fds=(self._liveness_read, *pass_fds),
                start_new_session=True,
            )


def stop_all() -> None:
    """Kill all processes that still run, without waiting: the threads that wait for them reap them."""
    with _running_lock:
        processes = list(_running)
    for process in processes:
        process.stop()


def exit_error(step: str, returncode: int, stderr_tail: str, environment: Environment) -> StepError:
    """Create the error for a process that ended without an answer.

    Args:
        step: The step's name, which starts the message.
        returncode: The exit code; the negative signal number when a signal ended the process.
        stderr_tail: The end of its stderr, in which texts such as `bad_alloc` say that memory ran out.
        environment: Its environment, for the memory limit in the message.

    Returns:
        StepOutOfMemory or StepCrashed.
    """
    limit = environment.memory_limit_bytes
    # SIGKILL is what the out-of-memory killers of the kernel and of containers send.
    if returncode == -signal.SIGKILL:
        return StepOutOfMemory(
            f"{step}: its process was killed (SIGKILL), most likely because memory ran out",
            step=step,
            stderr_tail=stderr_tail,
        )
    if any(marker in stderr_tail for marker in _OOM_MARKERS):
        allowed = "" if limit is None else f" (it was allowed {format_memory(limit)})"
        return StepOutOfMemory(f"{step}: its process ran out of memory{allowed}", step=step, stderr_tail=stderr_tail)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return StepCrashed(f"{step}: its process crashed with {name}", step=step, stderr_tail=stderr_tail, signal=name)
    message = f"{step}: its process ended with exit code {returncode} and no answer"
    return StepCrashed(message, step=step, stderr_tail=stderr_tail)


def timeout_error(step: str, timeout_s: float, stderr_tail: str) -> StepTimedOut:
    """Create the error for a process that did not answer within `timeout_s` seconds."""
    return StepTimedOut(f"{step}: no answer after {timeout_s:g} s; it was stopped", step=step, stderr_tail=stderr_tail)


def wait_checked(child: Process, environment: Environment, *, step: str, timeout_s: float) -> None:
    """Wait until a process has ended with exit code 0.

    Args:
        child: The process.
        environment: Its environment, for the memory limit in the message.
        step: The step's name, for error messages.
        timeout_s: The limit in seconds.

    Raises:
        StepCrashed: The process ended with a signal or another exit code.
        StepOutOfMemory: The process ran out of memory.
        StepTimedOut: The process still runs after `timeout_s`. It is not stopped here.
    """
    try:
        returncode = child.wait(timeout_s)
    except TimeoutError:
        raise timeout_error(step, timeout_s, child.stderr_tail()) from None
    if returncode != 0:
        raise exit_error(step, returncode, child.stderr_tail(), environment)


def run_module(module: str, arguments: Sequence[str], environment: Environment, *, step: str, timeout_s: float) -> None:
    """Run `python -m module arguments` in a fresh process and wait until it has ended.

    Args:
        module: The module's dotted name.
        arguments: Its arguments.
        environment: Variables, cores and memory limit.
        step: The step's name, for error messages.
        timeout_s: The limit in seconds, after which the process is killed.

    Raises:
        StepCrashed: The process ended with a signal or an exit code other than 0.
        StepOutOfMemory: The process ran out of memory.
        StepTimedOut: The process did not end in time.
    """
    child = Child([module, *arguments], environment)
    try:
        wait_checked(child, environment, step=step, timeout_s=timeout_s)
    finally:
        child.kill()
