"""Worker job of `edgekit doctor` that tries what a confined worker may not do."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.events import Listener
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class ProbeRequest:
    """A request to try what is denied.

    Attributes:
        path: A file that does not exist, in a folder outside those of the worker, absolute.
    """

    path: str


@worker_job
def try_denied_actions(request: ProbeRequest, _emit: Listener) -> tuple[str, ...]:
    """Try to write a file, to use the network and to start a program.

    Args:
        request: The file to write.

    Returns:
        The actions that were not denied: `write files`, `use the network` and `run programs`.
    """

    def execute() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                os.execv(sys.executable, [sys.executable, "-S", "-c", ""])  # noqa: S606 - fixed arguments, no shell
            except OSError:
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            raise PermissionError

    actions: dict[str, Callable[[], object]] = {
        "write files": lambda: Path(request.path).touch(),
        "use the network": lambda: socket.socket().close(),
        "run programs": execute,
    }
    return tuple(name for name, action in actions.items() if not _denied(action))


def _denied(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError:
        return True
    return False
