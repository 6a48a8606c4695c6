"""The warm workers that all assertions of a test session share; started by the first one that needs them."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.stages.context import Context

# At most one context; a list, so that functions can replace it.
_open: list[Context] = []


def context() -> Context:
    """Return the context of the project in the current folder; its workers run until `close`."""
    from edgekit.core.environment.project import open_project
    from edgekit.core.events import ignore
    from edgekit.stages.context import Context
    from edgekit.workers.pool import WorkerPool

    if _open and _open[0].project.root != Path.cwd().resolve():
        close()
    if not _open:
        _open.append(Context(open_project(Path.cwd()), WorkerPool(), ignore))
        atexit.register(close)
    return _open[0]


def close() -> None:
    """Stop the workers."""
    while _open:
        context = _open.pop()
        context.pool.close()
        context.close()
