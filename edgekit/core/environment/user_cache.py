"""The user's cache folder: downloads and builds that all projects share."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgekit.core.environment.atomic_files import mapped_write_errors
from edgekit.core.environment.user_folders import user_folder
from edgekit.core.errors import InputError


def cache_folder() -> Path:
    """Return the cache folder, which need not exist yet.

    Returns:
        `$EDGEKIT_CACHE`, else `$XDG_CACHE_HOME/edgekit`, else `~/.cache/edgekit`, as an absolute path.
    """
    return user_folder("EDGEKIT_CACHE", "XDG_CACHE_HOME", "~/.cache")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which is created if it is missing. Other processes wait for the lock.

    Args:
        folder: The folder.

    Raises:
        InputError: The folder cannot be written.
        DiskFull: There is no space left.
    """
    with mapped_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    # The kernel releases a flock() when the file is closed, also when the process is killed.
    with stream:
        lock_exclusively(stream, folder)
        yield


def lock_exclusively(stream: IO[str], path: Path, flags: int = 0) -> None:
    """Lock an open file until it is closed.

    Args:
        stream: The file.
        path: What the lock protects, for the error message.
        flags: `fcntl.LOCK_NB` not to wait.

    Raises:
        BlockingIOError: Another process holds the lock, and `flags` forbids to wait.
        InputError: The file system has no locks, or none is left.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot lock {path}: {reason}; use a folder on a file system with locks") from None
