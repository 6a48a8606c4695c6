"""A connection to a board: OpenSSH's own client, with edgekit's agent at the other end.

Nothing of the user's configuration becomes a part of a command line that a shell reads, except for the board's Python,
which is quoted. ssh reads the user's own configuration: keys, agent, jump hosts, and how host keys are checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.config.board import BoardConfig
from edgekit.core.errors import (
    DiskFull,
    EdgekitError,
    InputError,
    MissingDependency,
    StepCrashed,
    StepFailed,
    StepTimedOut,
)
from edgekit.workers import scratch
from edgekit.workers.process import PipedProcess

_AGENT = Path(__file__).with_name("_agent.py")
# What the agent writes first, so that a greeting of the board's shell is not taken for a reply.
_MARKER = b"edgekit-board-agent 1\n"
_MOST_GREETING_BYTES = 1 << 20
# Reads the agent from stdin: the command line of a process is visible to all users of the board, and is limited.
_BOOT = 'import sys;f=sys.stdin.buffer;n=int(f.readline());exec(compile(f.read(n),"edgekit-agent","exec"))'
_CONNECT_S = 15
# Of a board that has accepted the connection: an SD card may take long to load Python.
ANSWER_S = 60.0
_PING_S = 5.0
# How long it may take until a client that has ended, or was stopped by Ctrl-C, is noticed.
_LIVENESS_S = 0.5
# The master connection outlives its first session so long, for an agent that is started again.
_PERSIST_S = 15
# Half of a megabyte at a time: a slow line shows a sign of life, and a cut one is resumed there.
_PART_BYTES = 1 << 19
_MOST_REPLY_BYTES = 1 << 30
_REMOVE_KEY = re.compile(r"ssh-keygen -f \S+ -R \S+")
_SSH_FAILED, _NOT_EXECUTABLE, _NOT_FOUND = 255, 126, 127


@dataclass(frozen=True)
class Reply:
    """A reply of the agent.

    Attributes:
        values: The decoded JSON.
        data: The bytes after it.
    """

    values: Mapping[str, Any]
    data: bytes = b""


class Connection:
    """One session on a board, which answers one request at a time.

    Use it in a `with` block, or close it. Whatever ends it, the agent at the other end kills what it started.
    """

    def __init__(self, name: str, board: BoardConfig) -> None:
        """Describe a connection; the first request opens it.

        Args:
            name: The board's name, for messages.
            board: How it is reached.
        """
        self.name, self.board = name, board
        self._lock = threading.RLock()
        self._process: PipedProcess | None = None
        self._folder: str | None = None
        self._buffer = bytearray()
        self._hello: Mapping[str, Any] = {}

    # Open and close ---------------------------------------------------------------------------------------------------

    def hello(self, step: str = "") -> Mapping[str, Any]:
        """Open the connection if it is not open.

        Args:
            step: The step's name, for errors.

        Returns:
            The board's Python, machine, C library, clock and folder, as they were when the connection was opened.

        Raises:
            InputError: The host is unknown, or the board or its host key is refused.
            MissingDependency: There is no ssh here, or no Python there.
            StepError: The board does not answer.
        """
        with self._lock:
            if self._process is None or not self._process.alive:
                self._open(step, ANSWER_S)
            return self._hello

    def _open(self, step: str, timeout_s: float) -> None:
        self._end_session()
        if self._folder is None:
            self._folder = _private_folder()
        # An earlier agent may have ended without its connection; a dead master would refuse new sessions.
        self._process = PipedProcess([*self._ssh(), "--", self.board.ssh, _remote_command(self.board.python)])
        deadline = time.monotonic() + timeout_s
        try:
            source = _AGENT.read_bytes()
            self._write(b"%d\n" % len(source) + source, step, deadline)
            self._skip_greeting(step, deadline)
            sent = time.time()
            reply = self._exchange({"op": "hello"}, b"", step, timeout_s)
            self._hello = {**reply.values, "clock_skew_s": reply.values["time"] - (sent + time.time()) / 2}
        except BaseException:
            self._end_session()
            raise

    def _ssh(self) -> list[str]:
        """Return the client and its options. Those of the user's configuration hold, but for these."""
        program = shutil.which("ssh")
        if program is None:
            raise MissingDependency("boards need ssh; install it with: apt-get install openssh-client")
        options = {
            "BatchMode": "yes",  # a prompt would wait for ever where nobody sees it
            "ConnectTimeout": str(_CONNECT_S),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPath": f"{self._folder}/c".replace("%", "%%"),
            "ControlPersist": str(_PERSIST_S),
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "RequestTTY": "no",
            "RemoteCommand": "none",
            "EscapeChar": "none",
            "LogLevel": "ERROR",
        }
        words = [program, "-T", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
        if self.board.ssh_config is not None:
            words += ["-F", self.board.ssh_config]
        if self.board.port is not None:
            words += ["-p", str(self.board.port)]
        if self.board.identity is not None:
            # An agent with many keys would use up the attempts that the board allows.
            words += ["-o", "IdentitiesOnly=yes", "-i", self.board.identity.replace("%", "%%")]
        return words

    def _end_session(self) -> None:
        process, self._process = self._process, None
        self._buffer.clear()
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the session and the master connection, and leave nothing behind on either side."""
        with self._lock:
            process, folder = self._process, self._folder
            if process is not None and process.alive and process.popen.stdin is not None:
                # The end of its input lets the agent end by itself, with what it started.
                with contextlib.suppress(OSError, TimeoutError):
                    process.popen.stdin.close()
                    process.wait(2.0)
            if folder is not None:
                if Path(folder, "c").exists():
                    with contextlib.suppress(OSError, subprocess.TimeoutExpired, EdgekitError):
                        command = [*self._ssh(), "-O", "exit", "--", self.board.ssh]
                        subprocess.run(command, capture_output=True, timeout=5, check=False)  # noqa: S603 - as above
                shutil.rmtree(folder, ignore_errors=True)
                self._folder = None
            self._end_session()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # Requests ---------------------------------------------------------------------------------------------------------

    def call(
        self,
        request: Mapping[str, Any],
        data: bytes = b"",
        *,
        step: str,
        timeout_s: float | None = None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Send a request and wait for the reply.

        Args:
            request: The request, with its name as `op`.
            data: The bytes that follow it.
            step: The step's name, for errors.
            timeout_s: The limit in seconds until the reply; None for that of a short request.
            waiting: Called when the board is busy with another measurement, whose end the request waits for.

        Returns:
            The reply.

        Raises:
            InputError: The board is refused, or refuses the request.
            MissingDependency: There is no ssh here, or no Python there.
            StepError: The connection was lost, the board failed, its disk is full, or it did not answer in time.
        """
        with self._lock:
            self.hello(step)
            try:
                return self._exchange(request, data, step, timeout_s or ANSWER_S, waiting)
            except (StepTimedOut, StepCrashed):
                self._end_session()
                raise
            except BaseException as error:
                if not isinstance(error, EdgekitError):  # Ctrl-C: the reply would be taken for that of the next request
                    self._end_session()
                raise

    def _exchange(
        self,
        request: Mapping[str, Any],
        data: bytes,
        step: str,
        timeout_s: float,
        waiting: Callable[[], None] = lambda: None,
    ) -> Reply:
        deadline = time.monotonic() + timeout_s
        self._write(json.dumps({**request, "size": len(data)}).encode() + b"\n" + data, step, deadline)
        while True:
            line = self._line(step, deadline)
            try:
                values = json.loads(line)
                size = values["size"]
                if not isinstance(size, int) or not 0 <= size <= _MOST_REPLY_BYTES:
                    raise ValueError("size")
            except (ValueError, KeyError, TypeError, RecursionError):
                self._end_session()
                raise StepFailed(
                    f"{_prefix(step)}{self.name} sent a reply that is none of edgekit's", step=step
                ) from None
            body = self._bytes(size, step, deadline)
            if values.get("event") == "waiting":
                waiting()
                continue
            if "error" in values:
                raise self._refusal(str(values["error"]), str(values.get("message", "")), step)
            return Reply(values, body)

    def _refusal(self, kind: str, message: str, step: str) -> EdgekitError:
        if kind == "full":
            return DiskFull(f"{_prefix(step)}no space left on {self.name} ({message})", step=step)
        if kind == "busy":
            return StepTimedOut(f"{_prefix(step)}{self.name} is busy: {message}", step=step)
        return StepFailed(f"{_prefix(step)}{self.name}: {message}", step=step)

    def upload(
        self, files: Mapping[str, Path], *, step: str, timeout_s: float, waiting: Callable[[], None] = lambda: None
    ) -> int:
        """Send files that the board does not have, each under its hash; a file that was cut off is continued.

        Args:
            files: Sha256 -> file.
            step: The step's name, for errors.
            timeout_s: The limit in seconds for each part.
            waiting: Called when the board is busy with another measurement, whose end the request waits for.

        Returns:
            The number of bytes that were sent.

        Raises:
            StepError: As `call`.
        """
        offsets = self.call({"op": "have", "files": sorted(files)}, step=step, timeout_s=timeout_s).values["offsets"]
        sent = 0
        for sha256, path in files.items():
            offset = int(offsets[sha256])
            if offset < 0:
                continue
            size = path.stat().st_size
            with path.open("rb") as stream:
                # A part that is longer than the file cannot be its beginning.
                offset = offset if offset <= size else 0
                stream.seek(offset)
                while True:
                    part = stream.read(_PART_BYTES)
                    request = {"op": "put", "sha256": sha256, "offset": offset, "last": offset + len(part) >= size}
                    self.call(request, part, step=step, timeout_s=timeout_s, waiting=waiting)
                    offset, sent = offset + len(part), sent + len(part)
                    if request["last"]:
                        break
        return sent

    # Bytes ------------------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, step: str, deadline: float) -> None:
        assert self._process is not None and self._process.popen.stdin is not None  # `_open` has started it
        descriptor = self._process.popen.stdin.fileno()
        os.set_blocking(descriptor, False)
        view = memoryview(data)
        while view:
            if time.monotonic() > deadline:
                raise self._timeout(step)
            try:
                if select.select([], [descriptor], [], 1.0)[1]:
                    view = view[os.write(descriptor, view) :]
                else:
                    self._check_alive(step)
            except BlockingIOError:
                continue
            except OSError:  # ssh has ended, or another thread has closed the connection
                raise self._ended(step) from None

    def _fill(self, step: str, deadline: float) -> None:
        """Read what has arrived. While nothing does, tell the agent that this end is alive."""
        assert self._process is not None and self._process.popen.stdout is not None  # `_open` has started it
        descriptor = self._process.popen.stdout.fileno()
        next_ping = time.monotonic() + _PING_S
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._timeout(step)
            try:
                data = None
                if select.select([descriptor], [], [], min(remaining, _LIVENESS_S))[0]:
                    data = os.read(descriptor, 1 << 16)
            except OSError:  # another thread has closed the connection
                data = b""
            if data:
                self._buffer += data
                return
            if data == b"":
                raise self._ended(step)
            # The master connection has the pipes of this session too: if it hangs, they do not end with the client.
            self._check_alive(step)
            if self._hello and time.monotonic() >= next_ping:
                self._write(b'{"op": "ping"}\n', step, deadline)
                next_ping = time.monotonic() + _PING_S

    def _line(self, step: str, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MOST_GREETING_BYTES:
                raise StepFailed(f"{_prefix(step)}{self.name} sent a reply that is none of edgekit's", step=step)
            self._fill(step, deadline)
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _bytes(self, size: int, step: str, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._fill(step, deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _skip_greeting(self, step: str, deadline: float) -> None:
        """Read until the agent has started; the board's shell may have printed something before."""
        self._hello = {}
        while self._line(step, deadline) + b"\n" != _MARKER:
            pass

    # Errors -----------------------------------------------------------------------------------------------------------

    def _check_alive(self, step: str) -> None:
        if self._process is None or not self._process.alive:
            raise self._ended(step)

    def _timeout(self, step: str) -> StepTimedOut:
        what = "did not answer in time" if self._hello else f"({self.board.label}) did not answer in time"
        return StepTimedOut(f"{_prefix(step)}{self.name} {what}; it was given up", step=step)

    def _ended(self, step: str) -> EdgekitError:
        """Return why ssh has ended: its exit code and what it wrote say it."""
        process = self._process
        if process is None:
            return StepCrashed(f"{_prefix(step)}the connection to {self.name} was closed", step=step)
        try:
            returncode = process.wait(5.0)
        except TimeoutError:
            returncode = _SSH_FAILED
        tail = process.stderr_tail()
        if process.stopped and returncode < 0:
            return StepCrashed(f"{_prefix(step)}the connection to {self.name} was stopped", step=step)
        if self._hello:
            return StepCrashed(
                f"{_prefix(step)}the connection to {self.name} was lost; what ran there was ended, and files that it"
                " has are not sent again",
                step=step,
                stderr_tail=tail,
            )
        return ssh_error(self.name, self.board, returncode, tail, step)


def ssh_error(name: str, board: BoardConfig, returncode: int, tail: str, step: str) -> EdgekitError:
    """Return the error for an ssh that ended before the agent had answered.

    Args:
        name: The board's name.
        board: How it is reached.
        returncode: ssh's exit code, which is that of the board's shell unless it is 255.
        tail: What ssh and the board's shell wrote to stderr.
        step: The step's name.
    """
    lines = [text.strip() for text in tail.splitlines() if text.strip(" @\r")]
    last = lines[-1][:300] if lines else "no message"
    start, by_hand = f"{_prefix(step)}{name}", shlex.join(_by_hand(board))
    if returncode != _SSH_FAILED:
        if returncode in (_NOT_FOUND, _NOT_EXECUTABLE):
            return MissingDependency(
                f"{start} has no Python '{board.python}'; install one there, or name another with: edgekit devices add"
                f" {name} --python PATH --replace"
            )
        return StepFailed(f"{start}: '{board.python}' ended with exit code {returncode} ({last})", step=step)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in tail:
        advice = _REMOVE_KEY.search(tail)  # it names the file; Debian's ssh prints it, others do not
        command = advice[0] if advice is not None else f"ssh-keygen -R {shlex.quote(_known_as(board))}"
        return InputError(
            f"{start}: the host key of {board.label} has changed, so that it may be another machine; if you know why,"
            f" remove the old key with: {command}"
        )
    if "Host key verification failed" in tail or "host key is known for" in tail:
        return InputError(f"{start}: the host key of {board.label} is not known; connect once by hand: {by_hand}")
    if "Permission denied" in tail or "Too many authentication failures" in tail:
        return InputError(
            f"{start}: {board.label} accepts none of these keys ({last}); allow yours with: ssh-copy-id {by_hand[4:]}"
        )
    if "Could not resolve hostname" in tail:
        return InputError(f"{start}: the host name of {board.label} is not known ({last})")
    if "Connection timed out" in tail or "Operation timed out" in tail or "timed out during banner" in tail:
        return StepTimedOut(
            f"{start}: {board.label} did not answer within {_CONNECT_S} s; is it switched on?", step=step
        )
    return StepFailed(f"{start}: cannot connect to {board.label} ({last})", step=step, stderr_tail=tail)


def _by_hand(board: BoardConfig) -> list[str]:
    """Return the command with which a person connects."""
    port = ["-p", str(board.port)] if board.port is not None else []
    identity = ["-i", board.identity] if board.identity is not None else []
    return ["ssh", *port, *identity, board.ssh]


def _known_as(board: BoardConfig) -> str:
    host = board.ssh.rpartition("@")[2]
    return host if board.port is None else f"[{host}]:{board.port}"


def _prefix(step: str) -> str:
    return f"{step}: " if step else ""


def _remote_command(python: str) -> str:
    """Return the command that the board's shell runs; `exec` leaves no shell between ssh and the agent."""
    # The shell starts in the home folder and does not expand a quoted `~`.
    path = python.removeprefix("~/")
    return f"exec {shlex.quote(path)} -u -c {shlex.quote(_BOOT)}"


def _private_folder() -> str:
    """Create a folder for the socket of the master connection, whose path must be shorter than 80 characters.

    Its name is that of a worker's folder: what a killed command has left is removed by a later one.
    """
    prefix = scratch.prefix()
    base = tempfile.gettempdir()
    is_short = len(base) + len(prefix) < 66  # a slash, 8 random characters, and the name of the socket follow
    return tempfile.mkdtemp(prefix=prefix, dir=base if is_short else "/tmp")  # noqa: S108 - mode 0700
