"""Reading of files that a person handed in: regular files only, and never more memory than there is.

A FIFO or a device would block the reader or never end. A compressed archive of some megabytes can claim any size: what
it claims is compared with the available memory before anything is decompressed, and no more than that is read.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path

from edgekit.core.errors import InputError
from edgekit.core.units import format_bytes

_CHUNK_BYTES = 1 << 20
# Decoded samples are copied at least once more: as one array per input, and on their way to a worker.
_MEMORY_SHARE = 0.5


def available_memory_bytes() -> int:
    """Return the memory that is available without swapping: the system's, or the control group's if that is less."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        limits.append(1024 * int(line.split()[1]))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no limit ("max"), or the other version of control groups
            bounds = [int(Path("/sys/fs/cgroup", name).read_text()) for name in (limit, used)]
            limits.append(max(0, bounds[0] - bounds[1]))
    return min(limits, default=2**31)  # 2 GiB where the system reports nothing


def open_descriptor(path: Path, what: str, flags: int = 0) -> int:
    """Open a path for reading, without waiting for the other end of a FIFO.

    Args:
        path: The path.
        what: What the file is, for error messages, such as "manifest".
        flags: Flags of `os.open` besides those for reading, such as `os.O_NOFOLLOW`.

    Returns:
        The descriptor, of a file of any kind: the caller checks it and closes it.

    Raises:
        InputError: The file is missing or unreadable.
    """
    try:
        # O_NONBLOCK: opening a FIFO would otherwise wait for a writer. It has no effect on regular files.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot read this {what}: {str(reason).lower()}") from error


def open_file(path: Path, what: str) -> io.BufferedReader:
    """Open a regular file for reading.

    Args:
        path: The file, or a symbolic link to it.
        what: What the file is, for error messages, such as "manifest".

    Returns:
        The stream.

    Raises:
        InputError: The file is missing or unreadable, or is a folder, a FIFO, a socket or a device.
    """
    descriptor = open_descriptor(path, what)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "is a directory" if stat.S_ISDIR(mode) else "it is not a regular file"
        raise InputError(f"{path}: cannot read this {what}: {kind}")
    return os.fdopen(descriptor, "rb")


def check_size(path: Path, what: str, size_bytes: int, max_bytes: int | None = None) -> None:
    """Raise InputError unless content of a size may be read into memory.

    Args:
        path: The file, for the message.
        what: What the file is, for the message.
        size_bytes: The size, as the file has or claims it.
        max_bytes: The largest size; None for half of the available memory.

    Raises:
        InputError: The content is too large.
    """
    if max_bytes is None and size_bytes > (limit := int(_MEMORY_SHARE * available_memory_bytes())):
        raise InputError(
            f"{path}: this {what} holds {format_bytes(size_bytes)}, and at most {format_bytes(limit)},"
            " half of the available memory, can be read"
        )
    if max_bytes is not None and size_bytes > max_bytes:
        raise InputError(
            f"{path}: this {what} holds {format_bytes(size_bytes)}, and at most {format_bytes(max_bytes)} are read"
        )


def compressed_size(path: Path) -> int:
    """Return the size of a file after `gzip -9` in bytes, which approximates its share of an app bundle.

    Args:
        path: The file, of any size: it is read in chunks.

    Raises:
        InputError: The file cannot be read.
    """
    import gzip  # every command imports this module, and few compress

    counter = _CountingSink()
    with open_file(path, "file") as stream, gzip.GzipFile("", "wb", 9, counter, mtime=0) as archive:
        while chunk := stream.read(_CHUNK_BYTES):
            archive.write(chunk)
    return counter.size


class _CountingSink:
    """A stream that counts what is written into it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass


def gunzip(content: bytes, max_bytes: int) -> bytes:
    """Decompress gzip data.

    Args:
        content: The compressed data.
        max_bytes: The largest size of the result.

    Returns:
        The data.

    Raises:
        ValueError: The data are damaged or truncated, or larger.
    """
    import gzip
    import zlib

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as archive:
            data = archive.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None
    if len(data) > max_bytes:
        raise ValueError(f"it holds more than {format_bytes(max_bytes)}")
    return data
