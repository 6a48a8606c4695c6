"""JSON files that know when a byte of them is not what was written: their first line is the sha256 of the rest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import write_text


def save(path: Path, data: Any) -> None:
    """Replaces the file in one step. Raises InputError or DiskFull; the old file then stands as it was."""
    body = json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))
    write_text(path, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")


def load(path: Path) -> Any:
    """What `save` wrote; None when there is nothing, or when it is damaged."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
        body = body.removesuffix(b"\n")
        return json.loads(body) if digest.decode() == hashlib.sha256(body).hexdigest() else None
    except (OSError, ValueError, RecursionError):
        return None
