"""The user's cache folder: what edgekit fetched or built once, for all projects."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.environment.atomic_files import mapped_write_errors


def cache_folder() -> Path:
    """`$EDGEKIT_CACHE`, else `$XDG_CACHE_HOME/edgekit`, else `~/.cache/edgekit`; it need not exist yet."""
    own = os.environ.get("EDGEKIT_CACHE")
    if own:
        return Path(own).absolute()
    # The XDG base directory specification: a relative path is invalid, and to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "edgekit"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in the folder, which is made; the others wait. The lock ends with its process."""
    with mapped_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
