"""Processes that have a library loaded and are copied for whoever needs a fresh one with it (zygotes, as on Android).

A copy is what a fresh process is once it has loaded the library: the same code, the same memory, nothing of other
steps in it. It is there in milliseconds where the library takes a second or more.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit.core.errors import Interrupted
from edgekit.workers.environment import Environment
from edgekit.workers.gated_process import Start, fresh_process
from edgekit.workers.process import Child, Process

_SOON_S = 30.0  # a fork takes milliseconds; one that does not come is no reason to wait for ever
_ANSWER_BYTES = 4096


class ForkedProcess(Process):
    """A copy of a zygote: its child, and so it is the zygote that tells of its end."""

    def __init__(
        self, connection: socket.socket, words: Sequence[str | None], fds: Sequence[int], environment: Environment
    ) -> None:
        """Raises OSError when the zygote does not answer."""
        super().__init__()
        self._returncode: int | None = None
        self._end, theirs = os.pipe()
        request = {"words": list(words), "scratch": self._scratch, "limits": environment.limits}
        try:
            with self._starting():
                given = [self.stderr_file.fileno(), self._life_read, theirs, *fds]
                socket.send_fds(connection, [json.dumps(request).encode()], given)
                self._pid = int(_answer(connection, _SOON_S)["pid"])
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        return self._pid

    def _ended(self) -> bool:
        return self._returncode is not None or bool(select.select([self._end], [], [], 0)[0])

    def wait(self, timeout_s: float | None = None) -> int:
        if self._returncode is None:
            if not select.select([self._end], [], [], timeout_s)[0]:
                raise TimeoutError
            # A zygote that was killed says nothing any more, and its copies have lost who tells of them.
            self._returncode = int(os.read(self._end, 64) or -signal.SIGKILL)
        return self._returncode

    def _close(self) -> None:
        os.close(self._end)
        super()._close()


def _answer(connection: socket.socket, timeout_s: float | None) -> dict[str, Any]:
    """What the zygote says. Raises OSError when it is gone, or says nothing."""
    connection.settimeout(timeout_s)
    message = connection.recv(_ANSWER_BYTES)
    if not message:
        raise ConnectionResetError("the zygote has ended")
    answer: dict[str, Any] = json.loads(message)
    return answer


class ForkServer:
    """One process with a library loaded: `module.preload(*about)` loads it, and copies run `module.main()`."""

    def __init__(self, module: str, affinity_key: Sequence[str], environment: Environment, timeout_s: float) -> None:
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            words = ["edgekit.workers._fork_server_main", str(fd), module, *affinity_key]
            self._child = Child(words, environment, pass_fds=(fd,))
        self.ready = True
        """Whether copies can be made: libraries may start threads, and systems be too old."""
        try:
            _answer(self._connection, timeout_s)
        except OSError:
            self.ready = False

    @property
    def stopped(self) -> bool:
        """Whether somebody here ended it: what it was to be copied for is not wanted any more."""
        return self._child.stopped

    def fork(self, words: Sequence[str | None], fds: Sequence[int], environment: Environment) -> ForkedProcess:
        """A copy. Raises OSError when the zygote does not answer: it is not ready any more."""
        try:
            with self._lock:
                return ForkedProcess(self._connection, words, fds, environment)
        except OSError:
            self.ready = False
            raise

    def close(self) -> None:
        """Ends it; its copies go on."""
        self._connection.close()
        self._child.kill()


class ForkServerPool:
    """One for each library and environment, made when it is first asked for. Threads may ask at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, tuple[str, ...], Environment], ForkServer] = {}
        self._making: dict[tuple[str, tuple[str, ...], Environment], threading.Lock] = {}

    def start(self, module: str, affinity_key: Sequence[str], environment: Environment, timeout_s: float) -> Start:
        """Starts `module.main()` in a copy of the process that has done `module.preload(*about)`.

        Where there can be no copy it is a fresh process, which then says what is wrong. Starting raises Interrupted
        where everything was stopped since it was asked for.
        """
        if not sys.platform.startswith("linux"):
            return fresh_process(module, environment)
        key = (module, tuple(affinity_key), replace(environment, cpus=None, memory_limit_bytes=None))
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            zygote = self._known.get(key)
            if zygote is not None and zygote.stopped:  # before this was asked for: whoever asks now goes on
                self._known.pop(key).close()
                zygote = None
            if zygote is None:
                zygote = self._known[key] = ForkServer(module, affinity_key, key[2], timeout_s)

        def copy(words: Sequence[str | None], fds: Sequence[int]) -> Process:
            if zygote.ready:
                with contextlib.suppress(OSError):  # it is gone: stopped with everything else, or for its memory
                    return zygote.fork(words, fds, environment)
            if zygote.stopped:
                raise Interrupted("stopped")
            return fresh_process(module, environment)(words, fds)

        return copy

    def close(self) -> None:
        """Ends them all."""
        with self._lock:
            known = list(self._known.values())
            self._known.clear()
        for zygote in known:
            zygote.close()
