"""The last wall: what no command has handled becomes one sentence and an exit code, never a traceback.

At import, this module loads only the standard library: it is part of every start.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.errors import EdgekitError

# 128 + SIGPIPE, as a shell reports a program that the closed pipe ends. 1 would mean that a check failed.
EXIT_PIPE_CLOSED = 141

# Errors of the machine, and not of what a person handed in.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# So many logs of unexpected errors are kept.
_KEPT_LOGS = 20


def prepare_streams() -> None:
    """Make stdout and stderr safe to print to: open, and able to print every name."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by the caller: the next file that is opened would receive what is printed
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open as long as the process
            setattr(sys, name, stream)
        # A terminal in latin-1 cannot print every character, and no terminal prints half of a surrogate pair.
        stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Write what is printed, so that an error is reported now and not by the interpreter's end."""
    if sys.stdout is not None:
        sys.stdout.flush()


def discard_stdout() -> None:
    """Send what stdout still holds to nowhere, so that the interpreter's end does not fail on it."""
    with suppress(OSError, ValueError, AttributeError):
        number = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def from_exception(error: Exception) -> EdgekitError:
    """Return the typed error for any exception; an unexpected one is written to a log.

    Args:
        error: What a command raised.
    """
    from edgekit.core.errors import DiskFull, EdgekitError, InputError, StepFailed, StepOutOfMemory

    if isinstance(error, EdgekitError):
        return error
    if isinstance(error, MemoryError):
        return StepOutOfMemory("this command needs more memory than there is")
    if isinstance(error, OSError) and error.errno is not None:
        reason = (error.strerror or str(error)).lower()
        if error.errno in _NO_SPACE:
            return DiskFull(f"cannot write {error.filename or 'to standard output'}: {reason}")
        if error.errno in _EXHAUSTED:
            return StepFailed(f"the system refuses what this command needs: {reason}")
        if error.filename is not None:
            return InputError(f"cannot read or write {os.fsdecode(error.filename)}: {reason}")
    return _unexpected(error)


def _unexpected(error: Exception) -> EdgekitError:
    from edgekit.core.errors import InternalError

    summary = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    log = _write_log(error)
    where = f"the details are in {log}" if log is not None else "no log could be written"
    return InternalError(f"unexpected error ({summary}); please report it: {where}", log=str(log or ""))


def _write_log(error: Exception) -> Path | None:
    """Write the traceback to a file that only its owner can read; return None where no folder can be written."""
    import tempfile
    import time
    import traceback
    from pathlib import Path

    from edgekit._version import __version__
    from edgekit.core.environment.user_cache import cache_folder

    lines = [f"edgekit {__version__}, Python {sys.version}\n", f"arguments: {sys.argv[1:]!a}\n\n"]
    text = "".join([*lines, *traceback.format_exception(error)]).encode("utf-8", "backslashreplace")
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-"
    for folder in (cache_folder() / "logs", Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(".log", name, folder)  # mode 0600
            with os.fdopen(handle, "wb") as stream:
                stream.write(text)
            if folder.name == "logs":
                _remove_old_logs(folder)
            return Path(path)
    return None


def _remove_old_logs(folder: Path) -> None:
    for path in sorted(folder.glob("error-*.log"))[:-_KEPT_LOGS]:
        path.unlink(missing_ok=True)


@contextmanager
def last_wall() -> Iterator[None]:
    """Turn every exception of the block but click's own into a message on stderr and an exit code.

    Raises:
        SystemExit: The block raised an exception.
    """
    import click

    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:
        discard_stdout()
        raise SystemExit(EXIT_PIPE_CLOSED) from None
    except Exception as error:  # noqa: BLE001 - the last wall
        typed = from_exception(error)
        discard_stdout()
        with suppress(OSError):
            click.echo(f"Error: {typed}", err=True)
        raise SystemExit(typed.exit_code) from None
