"""Requests to a worker. The contents of large arrays go through a file that the worker maps into its memory.

A test set sent through a pipe exists five times for a moment: as arrays and as a pickle in both processes, and in parts
in the pipe. A mapped file exists once, in the page cache, and its pages are read when they are used.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import IO, Any

# Below this, creating and mapping a file takes longer than a copy through the pipe.
_MIN_BYTES = 2**20
# The alignment that numpy's and the runtimes' vectorized loops are fastest with: a cache line.
_ALIGNMENT = 64


def send(connection: Connection, value: object, pid: int) -> None:
    """Send a value to a worker.

    Args:
        connection: The connection to the worker.
        value: The value, which is pickled.
        pid: The process id of the worker.

    Raises:
        ConnectionError: The worker has ended.
    """
    with contextlib.ExitStack() as stack:
        sizes: list[int] = []
        try:
            file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            message = _pickle(value, file, sizes)
        except OSError:  # the folder for temporary files is full: through the pipe after all
            sizes.clear()
            message = pickle.dumps(value)
        connection.send(sizes)
        connection.send_bytes(message)
        if sizes:
            send_handle(connection, file.fileno(), pid)


def _pickle(value: object, file: IO[bytes], sizes: list[int]) -> bytes:
    """Return the pickle without the contents of large arrays, which are written to the file; append their sizes."""

    def store(buffer: pickle.PickleBuffer) -> bool:
        content = buffer.raw()
        if content.nbytes < _MIN_BYTES:
            return True  # inside the pickle
        _write(file, content)
        _write(file, memoryview(bytes(-content.nbytes % _ALIGNMENT)))
        sizes.append(content.nbytes)
        return False

    return pickle.dumps(value, protocol=5, buffer_callback=store)


def _write(file: IO[bytes], content: memoryview) -> None:
    done = 0
    while done < content.nbytes:  # one call writes at most 2 GiB
        done += file.write(content[done:])


def receive(connection: Connection) -> Any:
    """Receive a value that `send` has sent.

    Args:
        connection: The connection to the parent.

    Returns:
        The value. Large arrays may be written to: changed pages are copies that only this process has.

    Raises:
        EOFError: The parent has closed the connection.
    """
    sizes: list[int] = connection.recv()
    message = connection.recv_bytes()
    if not sizes:
        return pickle.loads(message)  # noqa: S301 - of the parent, which trusts itself
    fd = recv_handle(connection)
    try:
        content = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(fd)  # the mapping stays until the last array is gone
    return pickle.loads(message, buffers=_split(content, sizes))  # noqa: S301 - as above


def _split(content: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    parts, start = [], 0
    for size in sizes:
        parts.append(content[start : start + size])
        start += size + -size % _ALIGNMENT
    return parts
