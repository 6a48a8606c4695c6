"""The one set of warm workers of a test session. It starts with the first assertion that needs it."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.stages.context import Context

_open: list[Context] = []


def context() -> Context:
    """The project of the folder that the tests run in, with workers that live until `close`."""
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
    """Ends the workers."""
    while _open:
        last = _open.pop()
        last.pool.close()
        last.close()
