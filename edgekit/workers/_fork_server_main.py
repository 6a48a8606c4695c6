"""The fork server's process: load a library once, then fork a copy of this process for each request.

`python -m edgekit.workers._bootstrap ... edgekit.workers._fork_server_main SOCKET_FD MODULE [WORD ...]` calls
`MODULE.preload(WORD ...)` and reports whether this process can be forked. A request is one message on the socket: JSON
with words and limits, and file descriptors (stderr, liveness pipe, exit pipe, and those that the words name). The fork
runs `MODULE.main()`; its exit code is written to its exit pipe.

Linux only. A process in which the library has started threads cannot be forked, because a fork does not copy threads.
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
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

from edgekit.workers import _bootstrap

# A request holds some paths and numbers; SOCK_SEQPACKET would cut off what is longer than the buffer.
_REQUEST_BYTES = 1 << 16

# The descriptors that come first in each request: stderr, liveness pipe, exit pipe. A gated process adds two.
_RESERVED_FDS, _MAX_FDS = 3, 16

# MADV_POPULATE_READ of <linux/mman.h>, since Linux 5.14; Python's mmap module does not name it.
_POPULATE_READ = 22

# The threads of a process that can be forked: the main thread, and the one that watches the parent.
_EXPECTED_THREADS = 2

# /proc/PID/pagemap holds 8 bytes a page, bit 63 is set for pages in memory. 512 entries are one page of the file.
_ENTRY, _PRESENT, _ENTRIES = struct.Struct("=Q"), 1 << 63, 512

Ranges = list[tuple[int, int]]


def _file_backed_ranges() -> Ranges:
    """Return the ranges of file-backed pages in this process's memory, as start addresses and lengths in bytes.

    A fork copies the page tables of private written pages but leaves those of file-backed pages to be faulted in again.
    A copy that has not faulted them in would count them towards its model's memory and not towards the library's.
    """
    ranges: Ranges = []
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, access, _, _, inode, *_ = line.split()
            if inode != "0" and access[0] == "r":
                start, end = (int(word, 16) for word in addresses.split("-"))
                ranges += _present_ranges(pagemap, start, end)
    return ranges


def _present_ranges(pagemap: IO[bytes], start: int, end: int) -> Ranges:
    """Return the ranges between two addresses whose pages are in memory."""
    ranges: Ranges = []
    # One page of entries at a time: a model would fill the free heap that a large buffer leaves, and seem smaller.
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


def _load_madvise() -> Any:
    """Return madvise(2) as a function. Raises OSError when the kernel does not support MADV_POPULATE_READ."""
    # Python's mmap.madvise() works only on mmap objects, not on the ranges of loaded libraries.
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        buffer = ctypes.c_char.from_buffer(page)
        failed = function(ctypes.addressof(buffer), mmap.PAGESIZE, _POPULATE_READ)
        del buffer  # an mmap with an exported buffer cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), "madvise does not support MADV_POPULATE_READ")
    return function


def _run_fork(module: Any, request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Set up the forked process with its own limits, run `module.main()`, and exit."""
    code = 1
    try:
        os.setsid()  # a group of its own: killing it must not reach the fork server
        stderr, liveness_fd, *_ = fds
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        # tempfile caches its folder at first use, which may have been during preload().
        os.environ["TMPDIR"] = tempfile.tempdir = request["scratch"]
        # A fork has only the thread that called fork(): the watcher has to be started again.
        _bootstrap.start(liveness_fd, **request["limits"])
        word_fds = iter(fds[_RESERVED_FDS:])
        sys.argv = [module.__name__, *(str(next(word_fds)) if word is None else word for word in request["words"])]
        module.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the fork must not return into the server's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # no atexit handlers: they belong to the server


class _ForkServer:
    """The loop that serves fork requests and reports the exit codes of the forks."""

    def __init__(self, connection: socket.socket, module: Any) -> None:
        self._connection = connection
        self._module = module
        self._madvise = _load_madvise()
        self._file_backed = _file_backed_ranges()
        self._forks: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, write end of the exit pipe)

    def serve(self) -> None:
        """Serve requests until the connection is closed."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd != self._connection.fileno():
                    poll.unregister(fd)
                    self._report_exit(fd)
                    continue
                message, fds, _, _ = socket.recv_fds(self._connection, _REQUEST_BYTES, _MAX_FDS)
                if not message:
                    return
                poll.register(self._fork(json.loads(message), fds), select.POLLIN)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """Fork this process for a request. Returns the pidfd of the fork."""
        pid = os.fork()
        if pid == 0:
            # A fork that kept these open would hide the end of the server, or of another fork, from the client.
            self._connection.close()
            for pidfd, (_, exit_fd) in self._forks.items():
                os.close(pidfd)
                os.close(exit_fd)
            os.close(fds[2])
            for start, length in self._file_backed:
                self._madvise(start, length, _POPULATE_READ)
            _run_fork(self._module, request, fds)
        # The server keeps only the exit pipe: the others have to end with the fork.
        for fd in (*fds[:2], *fds[_RESERVED_FDS:]):
            os.close(fd)
        self._connection.send(json.dumps({"pid": pid}).encode())
        # A pidfd becomes readable when the process ends: one poll() waits for requests and for all forks.
        pidfd = os.pidfd_open(pid)
        self._forks[pidfd] = pid, fds[2]
        return pidfd

    def _report_exit(self, pidfd: int) -> None:
        """Reap a fork and write its exit code to its exit pipe."""
        pid, exit_fd = self._forks.pop(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # the client has closed its end: nobody waits for the code
            os.write(exit_fd, str(code).encode())
        os.close(exit_fd)
        os.close(pidfd)


def main() -> None:
    """Load the library, report that this process can be forked, and serve requests.

    Raises:
        RuntimeError: The library has started threads.
        OSError: The kernel does not support MADV_POPULATE_READ.
    """
    connection = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # collections would scan the library's growing set of objects again and again
    module = importlib.import_module(sys.argv[2])
    module.preload(*sys.argv[3:])
    # Collections in a fork must not touch these objects: they would write to their pages and so copy them.
    gc.freeze()
    gc.enable()
    if len(list(Path("/proc/self/task").iterdir())) > _EXPECTED_THREADS:
        raise RuntimeError("the library has started threads, which a fork does not copy")
    server = _ForkServer(connection, module)
    connection.send(json.dumps({"ready": True}).encode())
    server.serve()


if __name__ == "__main__":
    main()
