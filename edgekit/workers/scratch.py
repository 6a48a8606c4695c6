"""The names of temporary folders of commands and their workers, and the removal of what killed processes have left."""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from functools import cache
from pathlib import Path

from edgekit.core.environment.process_identity import PATTERN, has_ended, own_process

_PREFIX = "edgekit-worker-"
# Workers end by themselves soon after their parent; until then they may still write.
_MIN_AGE_S = 60.0


@cache
def _namespace() -> str:
    """Return a digest of the host and of the kernel's namespace, within which process ids are unique."""
    try:
        kernel = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:  # not Linux
        kernel = ""
    return hashlib.sha256(f"{platform.node()} {kernel}".encode("utf-8", "surrogateescape")).hexdigest()[:8]


def prefix() -> str:
    """Return how the name of a temporary folder of this process starts: it names the process.

    The first call of a process removes what killed processes have left.
    """
    collect_once()
    return f"{_PREFIX}{_namespace()}-{own_process()}-"


def create() -> str:
    """Create the temporary folder of a worker of this process, and return its path; the caller removes it."""
    return tempfile.mkdtemp(prefix=prefix())


@cache
def collect_once() -> None:
    """Remove what killed processes have left in the folder for temporary files, and at the exit what this one leaves.

    SIGTERM may interrupt the main thread between the creation of a folder and the statement that stores its name.
    Nobody removes such a folder before the exit.
    """
    folder = Path(tempfile.gettempdir())
    collect(folder)
    atexit.register(_remove_own, folder, own_process())


def _remove_own(folder: Path, process: str) -> None:
    if own_process() != process:  # a forked child: the folders are its parent's
        return
    for path in folder.glob(f"{_PREFIX}{_namespace()}-{process}-*"):
        shutil.rmtree(path, ignore_errors=True)


def collect(folder: Path) -> tuple[Path, ...]:
    """Remove the folders of killed processes.

    Only folders are removed, and only those of this user whose process ran on this host and has ended, if they have not
    changed for a minute. Links are neither removed nor followed.

    Args:
        folder: The folder for temporary files.

    Returns:
        The removed folders.
    """
    pattern = re.compile(rf"{_PREFIX}{_namespace()}-({PATTERN})-\w+")
    removed = []
    try:
        entries = list(os.scandir(folder))
    except OSError:  # a folder that may be written but not listed
        return ()
    for entry in entries:
        match = pattern.fullmatch(entry.name)
        if match and has_ended(match[1]) and _is_abandoned(entry):
            # rmtree() does not follow links, even if another process exchanges a folder for one.
            shutil.rmtree(entry.path, ignore_errors=True)
            removed.append(Path(entry.path))
    return tuple(removed)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # another process has removed it
        return False
    is_old = time.time() - status.st_mtime > _MIN_AGE_S
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and is_old
