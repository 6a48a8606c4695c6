"""One sentence for whatever a library raises while it opens a file that a person handed in."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.errors import EdgekitError, InputError

# Errors of the machine, which say nothing about the file.
_MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
# A framework may print a whole graph.
_MAX_REASON_CHARACTERS = 200


@contextmanager
def damage_reported(path: Path, reader: str) -> Iterator[None]:
    """Convert an exception of the block to the error for a file that cannot be read.

    Parsers of damaged files raise exceptions of any type, from IndexError to those of native libraries.

    Args:
        path: The file or folder that the block opens.
        reader: What reads it, such as "LiteRT" or "Keras".

    Raises:
        InputError: The block raised something else than an error of edgekit, of the import system or of the machine.
    """
    try:
        yield
    except (EdgekitError, MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0]}"[:_MAX_REASON_CHARACTERS] if lines else type(error).__name__
        raise InputError(
            f"{path}: {reader} cannot read this file: it is damaged, of another format, or uses what is not supported"
            f" ({reason})"
        ) from error
