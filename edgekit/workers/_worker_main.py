"""A worker's loop: receive a job's name and request, and send events, then the job's answer or its error."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from edgekit.core import logs
from edgekit.core.errors import (
    DiskFull,
    EdgekitError,
    MissingDependency,
    StepDenied,
    StepError,
    StepFailed,
    StepOutOfMemory,
)
from edgekit.core.events import Event
from edgekit.workers import answers, confinement, requests
from edgekit.workers.job import find_job

# An error is printed as one line; stderr keeps the full text.
_MAX_LINE_CHARACTERS = 300
# Keras writes parts of its errors in bold.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def _one_line(error: BaseException) -> str:
    # Libraries write what happened first and the cause below it, or the other way round.
    line = " ".join(_COLOURS.sub("", str(error)).split()) or "no message"
    line = line if len(line) <= _MAX_LINE_CHARACTERS else line[: _MAX_LINE_CHARACTERS - 3] + "..."
    cause = error.__cause__
    # What a library raises from something else often says only where it happened.
    if cause is None or isinstance(cause, EdgekitError) or not str(cause) or str(cause) in str(error):
        return line
    return f"{line} (because of {type(cause).__name__}: {_one_line(cause)})"


def map_error(error: BaseException, step: str) -> EdgekitError:
    """Convert an exception of any library to edgekit's error tree. No other place does this for workers.

    Args:
        error: What the function raised. An `EdgekitError` is returned as it is, with the step filled in.
        step: The step's name, which starts the message.

    Returns:
        The error that the caller of the worker raises.
    """
    denied = _denied_access(error)
    if denied is not None:
        message = (
            f"{step}: {denied}; a worker that opens models may not write elsewhere, use the network or run programs"
        )
        return StepDenied(message, step=step)
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
    return StepFailed(f"{step}: {type(error).__name__}: {_one_line(error)}", step=step)


def _denied_access(error: BaseException) -> str | None:
    """Return what the confinement denied, if the error or its cause says so."""
    if confinement.active() is None:
        return None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            # os.access() asks for file permissions only: a file that they protect was not denied by the confinement.
            unreadable = (
                cause.filename is not None and Path(cause.filename).exists() and not os.access(cause.filename, os.R_OK)
            )
            if cause.errno == errno.EACCES and not unreadable:
                return f"the access was denied ({_one_line(cause)})"
        # Native libraries put the text of EACCES into their own exceptions.
        elif "Permission denied" in str(cause):
            return f"the access was denied ({_one_line(cause)})"
        cause = cause.__cause__
    return None


def _answer(connection: Connection, step: str, job: str, request: object, log_level: int) -> None:
    lock = threading.Lock()  # a job's threads may log while it emits an event

    def send_event(event: Event) -> None:
        with lock:
            connection.send_bytes(answers.dumps(("event", event)))

    try:
        with logs.forwarded(step, log_level, send_event):
            answer = find_job(job)(request, send_event)
        connection.send_bytes(answers.dumps(("value", answer)))
    except Exception as error:  # noqa: BLE001 - foreign errors are mapped here and nowhere else
        traceback.print_exc()  # the parent keeps stderr and attaches its tail to the error
        # As a dictionary: exceptions whose constructors need more than a message do not unpickle.
        connection.send_bytes(answers.dumps(("error", map_error(error, step).to_dict())))


def main() -> None:
    """Serve calls until the parent closes the connection."""
    connection = Connection(int(sys.argv[1]))
    # EOFError while waiting for a call, BrokenPipeError while sending an answer: both say that the parent has closed.
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            step, job, request, log_level = requests.receive(connection)
            _answer(connection, step, job, request, log_level)


if __name__ == "__main__":
    main()
