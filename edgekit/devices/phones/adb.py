"""The adb client, Debian's or that of the SDK, which speaks to the adb server of this host or of $ADB_SERVER_SOCKET.

adb joins the words of a command with spaces, and the phone's shell reads the result. So each command is one text here,
whose arguments are quoted for that shell; no name of a tensor or of a user's file is among them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.config.phone import PhoneConfig
from edgekit.core.errors import (
    DiskFull,
    EdgekitError,
    InputError,
    MissingDependency,
    StepCrashed,
    StepFailed,
    StepTimedOut,
)
from edgekit.workers.process import PipedProcess

# What the shell user of every phone may write to, and run programs from.
FOLDER = "/data/local/tmp/edgekit"
# Beside the folder and not in it: it stays when the folder is removed while another client waits.
LOCK = "/data/local/tmp/edgekit-measurement.lock"
# Of a phone that is connected: adb may have to start its server first.
ANSWER_S = 60.0
_SIGN_S = 5.0
# How long it may take until a client that has ended, or was stopped by Ctrl-C, is noticed.
_LIVENESS_S = 0.5
_MARK = b"@edgekit "
_NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class RunOutput:
    """What a program on a phone gave.

    Attributes:
        returncode: Its exit code; the negative signal number when a signal ended it.
        log: What it wrote to stdout and stderr.
        output: The content of its file `output`; empty if it wrote none.
    """

    returncode: int
    log: str
    output: bytes


class AdbClient:
    """Runs commands on a phone, one after the other. Whatever ends a command here ends what it started there."""

    def __init__(self, name: str, config: PhoneConfig) -> None:
        """Describe a client; it connects when it is used.

        Args:
            name: The phone's name, for messages.
            config: How it is reached.
        """
        self.name, self.config = name, config
        self._lock = threading.RLock()
        self._process: PipedProcess | None = None
        self._buffer = bytearray()
        self._closed = False

    def close(self) -> None:
        """End the command that runs, and what it has started on the phone."""
        self._closed = True
        process = self._process  # without the lock, which the thread holds that waits for the command
        if process is not None and process.alive and process.popen.stdin is not None:
            # The end of its input lets the phone end the program by itself and remove its files.
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                process.popen.stdin.close()
                process.wait(3.0)
            process.stop()

    def shell(self, script: str, arguments: Sequence[str] = (), *, step: str, timeout_s: float = ANSWER_S) -> str:
        """Run a short script on the phone.

        Args:
            script: The script, for the phone's `sh`.
            arguments: Its arguments.
            step: The step's name, for errors.
            timeout_s: The limit in seconds.

        Returns:
            What it wrote to stdout.

        Raises:
            InputError: The phone is not connected, or does not allow it.
            MissingDependency: There is no adb here.
            StepError: The adb server or the phone does not answer, or its storage is full.
        """
        with self._lock, self._session(("shell", "-T", _command(script, arguments)), step) as process:
            returncode, text = self._finish(process, step, timeout_s)
            if returncode != 0:
                raise self._error(process, step, text)
            return text

    def _finish(self, process: PipedProcess, step: str, timeout_s: float) -> tuple[int, str]:
        """Wait until adb has ended; return its exit code and what it wrote to stdout."""
        deadline = time.monotonic() + timeout_s
        try:
            while self._fill(process, deadline):
                pass
            returncode = process.wait(max(1.0, deadline - time.monotonic()))
        except TimeoutError:
            message = f"{_prefix(step)}{self.name} ({self.config.adb}) did not answer in time; it was given up"
            raise StepTimedOut(message, step=step) from None
        return returncode, bytes(self._buffer).decode("utf-8", "replace")

    def run(
        self,
        script: str,
        words: Sequence[str],
        *,
        inputs: str = "",
        lock: bool = True,
        step: str,
        timeout_s: float,
        waiting: Callable[[], None] = lambda: None,
    ) -> RunOutput:
        """Run a program in a scratch folder of the phone, while nothing else is measured there.

        Args:
            script: The script that supervises the program.
            words: The program and its arguments.
            inputs: The path of an archive on the phone that is unpacked into the scratch folder; empty for none.
            lock: Whether to wait until nobody else measures on the phone.
            step: The step's name, for errors.
            timeout_s: The limit in seconds of the program, and of waiting for other measurements.
            waiting: Called when another measurement runs, whose end this one waits for.

        Returns:
            How the program ended, and what it wrote.

        Raises:
            EdgekitError: As `shell`; or the program took too long, or the connection was lost.
        """
        arguments = (FOLDER, secrets.token_hex(8), LOCK if lock else "", inputs, *words)
        with self._lock, self._session(("shell", "-T", _command(script, arguments)), step) as process:
            deadline, state = time.monotonic() + ANSWER_S, ""
            try:
                while True:
                    state, *values = self._marked_line(process, step, deadline, state)
                    deadline = time.monotonic() + timeout_s
                    if state == "waiting":
                        waiting()
                    elif state == "end":
                        return self._output(process, values, step, deadline)
            except TimeoutError:
                raise self._run_timeout(step, state, timeout_s) from None

    def _output(self, process: PipedProcess, values: Sequence[str], step: str, deadline: float) -> RunOutput:
        if len(values) != 3 or not all(value.isdigit() for value in values):
            raise StepFailed(f"{_prefix(step)}{self.name} sent a reply that is none of edgekit's", step=step)
        code, log_bytes, output_bytes = map(int, values)
        log = self._bytes(process, log_bytes, step, deadline).decode("utf-8", "replace")
        output = self._bytes(process, output_bytes, step, deadline)
        with contextlib.suppress(TimeoutError):  # the script still removes its folder
            process.wait(5.0)
        if code and _NO_SPACE in log:
            raise self._full(step)
        return RunOutput(128 - code if code > 128 else code, log, output)

    def push(self, file: Path, path: str, *, step: str, timeout_s: float) -> None:
        """Copy a file to the phone.

        Args:
            file: The file.
            path: The path on the phone.
            step: The step's name, for errors.
            timeout_s: The limit in seconds.

        Raises:
            EdgekitError: As `shell`.
        """
        with self._lock, self._session(("push", str(file.absolute()), path), step) as process:
            returncode, text = self._finish(process, step, timeout_s)
            if returncode != 0:
                raise self._error(process, step, text)

    # One client -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _session(self, words: tuple[str, ...], step: str) -> Iterator[PipedProcess]:
        if self._closed:
            raise StepCrashed(f"{_prefix(step)}the connection to {self.name} was stopped", step=step)
        self._buffer.clear()
        process = self._process = PipedProcess([_program(), "-s", self.config.adb, *words])
        try:
            yield process
        finally:
            self._process = None
            if process.popen.stdin is not None:
                with contextlib.suppress(OSError, ValueError):
                    process.popen.stdin.close()
            process.kill()

    def _fill(self, process: PipedProcess, deadline: float) -> bool:
        """Read what has arrived, and return False at the end. While nothing arrives, tell that this end is alive.

        Raises:
            TimeoutError: Nothing has arrived in time.
        """
        assert process.popen.stdout is not None and process.popen.stdin is not None  # it was started with pipes
        next_sign = time.monotonic() + _SIGN_S
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            # Asked before the pipe: what adb wrote before it ended is still in it.
            alive = process.alive
            try:
                if select.select([process.popen.stdout], [], [], min(remaining, _LIVENESS_S) if alive else 0)[0]:
                    data = os.read(process.popen.stdout.fileno(), 1 << 16)
                    self._buffer += data
                    return bool(data)
                if time.monotonic() >= next_sign:
                    os.write(process.popen.stdin.fileno(), b"\n")
                    next_sign = time.monotonic() + _SIGN_S
            except (OSError, ValueError):  # adb has ended, or another thread has closed the connection
                return False
            if not alive:
                return False

    def _marked_line(self, process: PipedProcess, step: str, deadline: float, state: str) -> list[str]:
        """Return the words of the next line that the script has written; others are a greeting of the shell."""
        while True:
            while b"\n" not in self._buffer:
                if not self._fill(process, deadline):
                    raise self._error(process, step, bytes(self._buffer).decode("utf-8", "replace"), bool(state))
            line, _, rest = bytes(self._buffer).partition(b"\n")
            self._buffer = bytearray(rest)
            if line.startswith(_MARK):
                return line[len(_MARK) :].decode("ascii", "replace").split() or [""]

    def _bytes(self, process: PipedProcess, size: int, step: str, deadline: float) -> bytes:
        while len(self._buffer) < size:
            if not self._fill(process, deadline):
                raise self._error(process, step, "", lost=True)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    # Errors -----------------------------------------------------------------------------------------------------------

    def _run_timeout(self, step: str, state: str, timeout_s: float) -> StepTimedOut:
        if state == "waiting":
            message = f"{_prefix(step)}{self.name} is busy: another measurement did not end within {timeout_s:g} s"
        elif state == "running":
            message = f"{_prefix(step)}no answer from {self.name} after {timeout_s:g} s; it was stopped"
        else:
            message = f"{_prefix(step)}{self.name} ({self.config.adb}) did not answer in time; it was given up"
        return StepTimedOut(message, step=step)

    def _full(self, step: str) -> DiskFull:
        return DiskFull(f"{_prefix(step)}no space left on {self.name} ({FOLDER})", step=step)

    def _error(self, process: PipedProcess, step: str, output: str, lost: bool = False) -> EdgekitError:
        """Return why adb has ended: what it wrote says it, unless it was cut off from what it had started."""
        with contextlib.suppress(TimeoutError):
            process.wait(5.0)
        if process.stopped or self._closed:
            return StepCrashed(f"{_prefix(step)}the connection to {self.name} was stopped", step=step)
        text = f"{output}\n{process.stderr_tail()}"
        if _NO_SPACE in text:
            return self._full(step)
        if lost:
            return StepCrashed(
                f"{_prefix(step)}the connection to {self.name} was lost; what ran there was ended, and files that it"
                " has are not sent again",
                step=step,
                stderr_tail=text,
            )
        return adb_error(self.name, self.config, text, step)


def adb_error(name: str, config: PhoneConfig, text: str, step: str) -> EdgekitError:
    """Return the error for an adb that ended without doing what it was asked for.

    Args:
        name: The phone's name.
        config: How it is reached.
        text: What adb and the phone's shell wrote.
        step: The step's name.
    """
    start, serial = f"{_prefix(step)}{name}", config.adb
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("* ")]
    last = lines[-1].removeprefix("adb: ").removeprefix("error: ")[:300] if lines else "no message"
    if any(mark in text for mark in ("cannot connect to daemon", "failed to start daemon", "cannot start server")):
        return StepFailed(
            f"{start}: the adb server cannot be reached ({last}); start it with: adb start-server", step=step
        )
    if "unauthorized" in text:
        return InputError(
            f"{start}: the phone {serial} does not allow this computer; unlock it and allow USB debugging"
        )
    if "more than one" in text:
        return InputError(f"{start}: several devices have the serial number {serial}; disconnect the others")
    if "no permissions" in text or "insufficient permissions" in text:
        return InputError(f"{start}: this user may not use the USB port of {serial}; install adb's udev rules ({last})")
    if "device offline" in text or "device still" in text:
        return StepFailed(f"{start}: the phone {serial} is offline; connect it again, or run: adb reconnect", step=step)
    if f"device '{serial}' not found" in text:
        return InputError(f"{start}: no phone {serial} is connected; {_connected()}")
    return StepFailed(f"{start}: adb failed ({last})", step=step, stderr_tail=text)


def _connected() -> str:
    """Return what is connected instead, as a clause."""
    try:
        done = subprocess.run([_program(), "devices"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - a list of words
        serials = [line.partition("\t")[0] for line in done.stdout.splitlines() if "\t" in line]
    except (OSError, subprocess.TimeoutExpired, EdgekitError):
        serials = []
    return f"adb lists {', '.join(serials)}" if serials else "adb lists none"


def _program() -> str:
    program = shutil.which("adb")
    if program is None:
        raise MissingDependency(
            "phones need adb; install it with: apt-get install adb, or put the SDK's platform-tools on the PATH"
        )
    return program


def _command(script: str, arguments: Sequence[str]) -> str:
    """Return a text for the phone's shell that runs a script with arguments."""
    return f"set -- {shlex.join(arguments)}\n{script}"


def _prefix(step: str) -> str:
    return f"{step}: " if step else ""


def sections(text: str) -> Mapping[str, list[str]]:
    """Split what a script wrote into its sections.

    Args:
        text: Lines, among them `@edgekit NAME`, which start a section.

    Returns:
        Name -> the lines of the section.
    """
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@edgekit "):
            lines = found.setdefault(line.removeprefix("@edgekit ").strip(), [])
        else:
            lines.append(line)
    return found
