"""A process that has loaded a library and makes copies of itself, each of which goes on as if it had loaded it.

`python -m edgekit.workers._bootstrap ... edgekit.workers._fork_server_main SOCKET_FD MODULE [WORD ...]` calls
`MODULE.preload(WORD ...)` and says whether copies can be made. For each request (words and limits as JSON, and file
descriptors: stderr, the child's life, where its end is told, and those that the words name) it forks: the copy runs
`MODULE.main()`.

Linux only: elsewhere, and where the library has started threads, which a fork does not copy, it says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import mmap
import os
import select
import socket
import struct
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

from edgekit.workers import _bootstrap

REQUEST_BYTES = 1 << 16
OUR_FDS = 3
"""stderr, life, end: the first of those that come with a request."""

_POPULATE_READ = 22  # MADV_POPULATE_READ, Linux 5.14
_OWN_THREADS = 2  # this one, and the one that watches over its parent's life
_ENTRY, _PRESENT, _ENTRIES = struct.Struct("=Q"), 1 << 63, 512  # of /proc/PID/pagemap

Ranges = list[tuple[int, int]]


def _mapped() -> Ranges:
    """Where pages of files are in this process's memory: starts and lengths, in bytes.

    A fork copies the page tables of what was written to and leaves those of files to be found again; a copy that has
    not found them yet would count them when its model runs, and not with the library.
    """
    ranges: Ranges = []
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, access, _, _, inode, *_ = line.split()
            if inode != "0" and access[0] == "r":
                start, end = (int(word, 16) for word in addresses.split("-"))
                ranges += _present(pagemap, start, end)
    return ranges


def _present(pagemap: IO[bytes], start: int, end: int) -> Ranges:
    """Which parts between two addresses are in memory. A page at a time, for what is read and thrown away here would
    be there for the copies' models to fill, before they need more."""
    ranges: Ranges = []
    for chunk in range(start, end, _ENTRIES * mmap.PAGESIZE):
        pagemap.seek(chunk // mmap.PAGESIZE * _ENTRY.size)
        entries = pagemap.read(min(_ENTRIES, (end - chunk) // mmap.PAGESIZE) * _ENTRY.size)
        for index, (entry,) in enumerate(_ENTRY.iter_unpack(entries)):
            address = chunk + index * mmap.PAGESIZE
            if not entry & _PRESENT:
                continue
            if ranges and sum(ranges[-1]) == address:
                ranges[-1] = ranges[-1][0], ranges[-1][1] + mmap.PAGESIZE
            else:
                ranges.append((address, mmap.PAGESIZE))
    return ranges


def _madvise() -> Any:
    """madvise(2). Raises OSError where it cannot populate."""
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        held = ctypes.c_char.from_buffer(page)
        failed = function(ctypes.addressof(held), mmap.PAGESIZE, _POPULATE_READ)
        del held
    if failed:
        raise OSError(ctypes.get_errno(), "madvise cannot populate")
    return function


def _become(module: Any, request: dict[str, Any], fds: list[int]) -> NoReturn:
    """The copy: limits and names of its own, then the module, and the end."""
    code = 1
    try:
        os.setsid()
        stderr, life, *_ = fds
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = request["scratch"]
        threading.Thread(target=_bootstrap.die_with_parent, args=(life,), daemon=True).start()
        _bootstrap.apply_limits(**request["limits"])
        given = iter(fds[OUR_FDS:])
        sys.argv = [module.__name__, *(str(next(given)) if word is None else word for word in request["words"])]
        module.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - nothing is to come back from here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class _ForkServer:
    """Serves one request after another, and tells the ends of its copies."""

    def __init__(self, connection: socket.socket, module: Any) -> None:
        self._connection = connection
        self._module = module
        self._madvise = _madvise()
        self._mapped = _mapped()
        self._ends: dict[int, tuple[int, int]] = {}  # pidfd -> pid, and where its end is told

    def serve(self) -> None:
        """Until nobody is there to ask."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd != self._connection.fileno():
                    poll.unregister(fd)
                    self._tell(fd)
                    continue
                message, fds, _, _ = socket.recv_fds(self._connection, REQUEST_BYTES, 16)
                if not message:
                    return
                poll.register(self._fork(json.loads(message), fds), select.POLLIN)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """The descriptor of the copy's process."""
        pid = os.fork()
        if pid == 0:
            self._connection.close()
            for pidfd, (_, other) in self._ends.items():
                os.close(pidfd)
                os.close(other)
            os.close(fds[2])
            for start, length in self._mapped:
                self._madvise(start, length, _POPULATE_READ)
            _become(self._module, request, fds)
        for fd in (*fds[:2], *fds[OUR_FDS:]):
            os.close(fd)
        self._connection.send(json.dumps({"pid": pid}).encode())
        pidfd = os.pidfd_open(pid)
        self._ends[pidfd] = pid, fds[2]
        return pidfd

    def _tell(self, pidfd: int) -> None:
        pid, end = self._ends.pop(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know
            os.write(end, str(code).encode())
        os.close(end)
        os.close(pidfd)


def main() -> None:
    """Loads, says whether copies can be made, and makes them."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # it would look through a library's objects again and again while they are made
    module = importlib.import_module(sys.argv[2])
    module.preload(*sys.argv[3:])
    gc.freeze()  # what is here stays here: no copy looks through it, or writes to it
    gc.enable()
    if len(list(Path("/proc/self/task").iterdir())) > _OWN_THREADS:
        raise RuntimeError("the library has started threads, which a fork does not copy")
    zygote = _ForkServer(connection, module)
    connection.send(json.dumps({"ready": True}).encode())
    zygote.serve()


if __name__ == "__main__":
    main()
