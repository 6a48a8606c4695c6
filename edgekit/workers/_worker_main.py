"""A worker's loop: receive a function's name and arguments, answer with its value, its error, or events on the way."""

from __future__ import annotations

import contextlib
import errno
import importlib
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from edgekit.core.errors import DiskFull, EdgekitError, MissingDependency, StepError, StepFailed, StepOutOfMemory


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else "no message"
    return line if len(line) <= 300 else line[:297] + "..."


def map_error(error: BaseException, step: str) -> EdgekitError:
    """The one boundary where errors of other libraries become ours."""
    if isinstance(error, EdgekitError):
        if isinstance(error, StepError) and not error.step:
            error.step = step
        return error
    if isinstance(error, MemoryError):
        return StepOutOfMemory(f"{step}: ran out of memory", step=step)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{step}: no space left on the disk", step=step)
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return StepOutOfMemory(f"{step}: ran out of memory", step=step)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return MissingDependency(f"{step} needs the Python package {package}; install it with: pip install {package}")
    return StepFailed(f"{step}: {type(error).__name__}: {_first_line(error)}", step=step)


def _answer(connection: Connection, step: str, function: str, arguments: dict[str, Any]) -> None:
    module, _, name = function.partition(":")
    try:
        call = getattr(importlib.import_module(module), name)
        value = call(**arguments, emit=lambda event: connection.send(("event", event)))
        connection.send(("value", value))
    except Exception as error:  # noqa: BLE001 - this is the boundary
        traceback.print_exc()  # to the kept stderr
        connection.send(("error", map_error(error, step).to_dict()))


def main() -> None:
    """Serves until the parent closes the connection."""
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            step, function, arguments = connection.recv()
            _answer(connection, step, function, arguments)


if __name__ == "__main__":
    main()
