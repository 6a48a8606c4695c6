"""Checksummed JSON files: the first line is the sha256 of the second, so that damage is detected on reading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import write_text


def save(path: Path, data: Any) -> None:
    """Replace a file atomically by data and their checksum. After an error the old file is unchanged.

    Args:
        path: The file; missing parent folders are created.
        data: Values that JSON can represent.

    Raises:
        InputError: The file cannot be written.
        DiskFull: There is no space left.
        ValueError: The data contain NaN or infinity.
    """
    body = json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
    write_text(path, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")


def load(path: Path) -> Any:
    """Read data that `save` wrote.

    Args:
        path: The file.

    Returns:
        The data, or None if the file is missing or damaged.
    """
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
        body = body.removesuffix(b"\n")
        return json.loads(body) if digest.decode() == hashlib.sha256(body).hexdigest() else None
    except (OSError, ValueError, RecursionError):
        return None
