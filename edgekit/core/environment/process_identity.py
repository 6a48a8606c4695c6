"""What identifies a process on its host: its id and when it started, since the kernel uses ids again."""

from __future__ import annotations

import os
import re
from pathlib import Path

# What `own_process` writes, and what earlier versions wrote: the id alone.
PATTERN = r"[1-9][0-9]{0,9}(?:\.[0-9]{1,20})?"


def own_process() -> str:
    """Return the identity of this process, as a part of a file's name: its id, a dot, and its start time.

    The start time is counted in clock ticks since the host was started: a change of the clock does not change it. It is
    left out where the system does not tell it.
    """
    status = _status(os.getpid())
    return str(os.getpid()) if status is None else f"{os.getpid()}.{status[1]}"


def has_ended(process: str) -> bool:
    """Return whether a process of this host has ended, so that what it left may be removed.

    Args:
        process: What `own_process` has returned in it.

    Returns:
        True also where another process has its id now; False for text that names no process.
    """
    return re.fullmatch(PATTERN, process) is not None and not _is_running(process)


def _is_running(process: str) -> bool:
    pid, _, started = process.partition(".")
    if not started:
        return _exists(int(pid))
    status = _status(int(pid))
    if status is None:
        # Without /proc, and where it hides the processes of other users, the id alone has to do.
        return _exists(int(pid))
    state, ticks = status
    return state not in "ZX" and ticks == int(started)


def _exists(pid: int) -> bool:
    try:
        # Signal 0 only checks. PermissionError: it exists, and belongs to another user.
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _status(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and its start time in clock ticks, by proc(5); None where they cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        # The name of the program, in brackets, may hold spaces and brackets. State is field 3, the start time field 22.
        fields = text.rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
