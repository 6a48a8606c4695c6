"""Fork servers: processes that have loaded a library once and fork a copy of themselves for each request.

A fork is in the state of a fresh process that has just loaded the library: the same code, the same memory, nothing of
other steps. It starts within milliseconds, where loading the library takes a second or more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

from edgekit.core.errors import Interrupted
from edgekit.workers.environment import Environment
from edgekit.workers.gated_process import Start, fresh_process
from edgekit.workers.process import Child, Process

_log = logging.getLogger(__name__)

# A fork takes milliseconds. On an overloaded machine it may take seconds; beyond this the server hangs.
_FORK_TIMEOUT_S = 30.0

# An answer is a JSON object with one number; an exit pipe holds one decimal number.
_ANSWER_BYTES = 4096
_EXIT_CODE_BYTES = 64


class ForkedProcess(Process):
    """A fork of a fork server. It is the server's child, so the server reaps it and reports its exit code."""

    def __init__(
        self, connection: socket.socket, words: Sequence[str | None], fds: Sequence[int], environment: Environment
    ) -> None:
        """Request a fork and wait until it exists. Raises OSError when the server does not answer."""
        super().__init__()
        self._returncode: int | None = None
        self._exit_read, exit_write = os.pipe()
        request = {"words": list(words), "scratch": self._scratch, "limits": environment.limits([self._scratch])}
        try:
            with self._starting():
                # In the order that _fork_server_main expects: stderr, liveness pipe, exit pipe, then the words'.
                request_fds = [self.stderr_file.fileno(), self._liveness_read, exit_write, *fds]
                socket.send_fds(connection, [json.dumps(request).encode()], request_fds)
                self._pid = int(_receive_answer(connection, _FORK_TIMEOUT_S)["pid"])
        finally:
            # Only the server may hold the write end: its end is then the end of the pipe.
            os.close(exit_write)

    @property
    def pid(self) -> int:
        return self._pid

    def _ended(self) -> bool:
        return self._returncode is not None or bool(select.select([self._exit_read], [], [], 0)[0])

    def wait(self, timeout_s: float | None = None) -> int:
        if self._returncode is None:
            if not select.select([self._exit_read], [], [], timeout_s)[0]:
                raise TimeoutError
            # The pipe is empty when the server was killed: nobody can reap the fork any more, count it as killed.
            self._returncode = int(os.read(self._exit_read, _EXIT_CODE_BYTES) or -signal.SIGKILL)
            self._kill_group()
        return self._returncode

    def _close(self) -> None:
        os.close(self._exit_read)
        super()._close()


def _receive_answer(connection: socket.socket, timeout_s: float | None) -> dict[str, Any]:
    """Return the fork server's next message. Raises OSError when the server has ended or does not answer in time."""
    connection.settimeout(timeout_s)
    message = connection.recv(_ANSWER_BYTES)
    if not message:
        raise ConnectionResetError("the fork server has ended")
    answer: dict[str, Any] = json.loads(message)
    return answer


class ForkServer:
    """One process that has loaded a library: `module.preload(*preload_words)` loads it, forks run `module.main()`."""

    def __init__(self, module: str, preload_words: Sequence[str], environment: Environment, timeout_s: float) -> None:
        """Start the process and wait until it has loaded the library, has failed, or `timeout_s` has passed."""
        self._lock = threading.Lock()
        # SOCK_SEQPACKET keeps message boundaries, which keeps descriptors with their request, and reports the end.
        self._connection, child_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with child_socket:
            fd = child_socket.fileno()
            words = ["edgekit.workers._fork_server_main", str(fd), module, *preload_words]
            self._child = Child(words, environment, pass_fds=(fd,))
        # False where the process cannot be forked: the library has started threads, or the kernel is too old.
        self.ready = True
        try:
            _receive_answer(self._connection, timeout_s)
        except OSError:
            self.ready = False

    @property
    def stopped(self) -> bool:
        """Whether this process has stopped the server, because its forks are no longer needed."""
        return self._child.stopped

    def fork(self, words: Sequence[str | None], fds: Sequence[int], environment: Environment) -> ForkedProcess:
        """Fork the server's process.

        Args:
            words: The arguments of `module.main()`; None stands for the number of the next of `fds` in the fork.
            fds: File descriptors that the fork receives.
            environment: Cores, memory limit and confinement of the fork. Its variables are the server's.

        Returns:
            The running fork.

        Raises:
            OSError: The server does not answer; it is not ready any more.
        """
        try:
            # One request at a time: answers carry no number that would assign them to requests.
            with self._lock:
                if not self.ready:
                    raise ConnectionResetError("the fork server has ended")
                return ForkedProcess(self._connection, words, fds, environment)
        except OSError:
            self.ready = False
            raise

    def close(self) -> None:
        """End the server; its forks continue."""
        # Killed first: a thread that waits for an answer of the server then raises, and releases the lock.
        self._child.kill()
        # Not while another thread uses the connection: its descriptor could be that of another file by then.
        with self._lock:
            self.ready = False
            self._connection.close()


class ForkServerPool:
    """One fork server a library and environment, started at its first request. Threads may request concurrently."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._servers: dict[tuple[str, tuple[str, ...], Environment], ForkServer] = {}
        self._start_locks: dict[tuple[str, tuple[str, ...], Environment], threading.Lock] = {}

    def start(self, module: str, preload_words: Sequence[str], environment: Environment, timeout_s: float) -> Start:
        """Return a function that starts `module.main()` in a fork of a process that has loaded a library.

        Where no fork can be made, the function starts a fresh process, which then reports what is wrong.

        Args:
            module: The dotted name of a module with `preload(*words)` and `main()`.
            preload_words: The arguments of `preload`.
            environment: Variables, cores and memory limit. Cores and memory limit hold for the fork only.
            timeout_s: The limit in seconds for loading the library.

        Returns:
            The start function of a `GatedProcess`. It raises Interrupted when everything was stopped since this call.

        Raises:
            Interrupted: The pool was closed.
        """
        if not sys.platform.startswith("linux"):
            return fresh_process(module, environment)
        # The server itself has no limits: it opens no model, and one server serves forks of all limits.
        variables_only = Environment(environment.variables, confined=False)
        key = (module, tuple(preload_words), variables_only)
        # One lock a server: loading one library must not delay the start of another's server.
        with self._lock:
            start_lock = self._start_locks.setdefault(key, threading.Lock())
        with start_lock:
            with self._lock:
                self._check_open()
                server = self._servers.get(key)
            # One that was stopped before this request is replaced: a new request needs a new server.
            if server is None or server.stopped:
                if server is not None:
                    server.close()
                server = ForkServer(module, preload_words, key[2], timeout_s)
                self._add(key, server)
                how = "measurements are its forks" if server.ready else "it cannot be forked: fresh processes measure"
                _log.info("fork server of %s started: %s", " ".join((module, *preload_words)), how)

        def start_fork(words: Sequence[str | None], fds: Sequence[int]) -> Process:
            if server.ready:
                # The server has ended: it was stopped with everything else, or killed for its memory.
                with contextlib.suppress(OSError):
                    return server.fork(words, fds, environment)
            if server.stopped:
                raise Interrupted("stopped")
            return fresh_process(module, environment)(words, fds)

        return start_fork

    def _add(self, key: tuple[str, tuple[str, ...], Environment], server: ForkServer) -> None:
        """Keep a server for later requests; if the pool was closed while it started, end it and raise Interrupted."""
        try:
            with self._lock:
                self._check_open()
                self._servers[key] = server
        except Interrupted:
            server.close()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise Interrupted("stopped")

    def close(self) -> None:
        """End all fork servers; the pool cannot be used afterwards."""
        with self._lock:
            self._closed = True
            servers = list(self._servers.values())
            self._servers.clear()
        for server in servers:
            server.close()
