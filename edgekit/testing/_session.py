"""The session that all assertions of a test session share; its workers are started by the first one that needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.api import Session

# At most one session; a list, so that functions can replace it.
_open: list[Session] = []


def session() -> Session:
    """Return the session of the project in the current folder; its workers run until `close`."""
    from edgekit.api import Session

    if _open and _open[0].root != Path.cwd():
        close()
    if not _open:
        _open.append(Session(Path.cwd()))
    return _open[0]


def close() -> None:
    """Stop the workers."""
    while _open:
        _open.pop().close()
