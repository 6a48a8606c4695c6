"""A cache of the latest plan, which is valid until something that it depends on changes."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import Graph, Step
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.records import checksummed_json
from edgekit.core.values.typed_json import decode

# The folder of edgekit's source code.
_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class CachedPlan:
    """A plan and what it was made from.

    Attributes:
        graph: The steps.
        notes: The notes and warnings that planning reported.
        looked_at: The paths that planning read or looked for, absolute or relative to the root.
    """

    graph: Graph
    notes: tuple[NoteEvent, ...]
    looked_at: tuple[str, ...]


@dataclass(frozen=True)
class _StoredPlan:
    """A cached plan on disk; the key `basis` is older than the name of `fingerprint`."""

    graph: tuple[Step, ...]
    notes: tuple[NoteEvent, ...]
    looked_at: tuple[str, ...]
    basis: Mapping[str, Any]


def fingerprint(root: Path, looked_at: Iterable[str], digests: FileDigests, host: str) -> dict[str, Any]:
    """Return the values that a plan depends on. A plan is valid while they are the same.

    Args:
        root: The project folder.
        looked_at: The paths that planning read or looked for, absolute or relative to the root.
        digests: Returns the digests of these files.
        host: A text that identifies the host's hardware and settings.

    Returns:
        JSON values: the host, Python, edgekit's source, the installed distributions, the files, and the names in
        their folders.

    Raises:
        OSError: A file exists, but cannot be read.
    """
    looked_at = tuple(looked_at)
    # A new module in a folder can change which file an import finds, without a change to any file that was read.
    folders = {str((root / path).parent) for path in looked_at}
    return {
        "root": str(root),
        "host": host,
        "python": [sys.version, *sys.path],
        "edgekit": _source_digest(),
        "installed": _installed_digest(),
        "files": {path: digests.of(path) for path in looked_at},
        "folders": {folder: _folder_digest(folder) for folder in sorted(folders)},
    }


def _digest(items: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(str, items)).encode()).hexdigest()


def _folder_digest(folder: str) -> str:
    """Return a digest of the names in a folder, without hidden ones and Python's bytecode cache."""
    try:
        return _digest(sorted(name for name in os.listdir(folder) if name[0] != "." and name != "__pycache__"))  # noqa: PTH208
    except OSError:
        return ""


def _installed_digest() -> str:
    """Return a digest of the installed distributions. Their metadata folders' names contain name and version."""
    names: set[str] = set()
    for folder in sys.path:
        try:
            names.update(name for name in os.listdir(folder or ".") if name.endswith(("-info", ".egg-link")))  # noqa: PTH208
        except OSError:
            continue
    return _digest(sorted(names))


def _source_digest() -> str:
    """Return a digest of the sizes and times of edgekit's files: its version does not change during development."""
    entries = []
    for folder, folders, names in os.walk(_PACKAGE):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - pathlib takes twice the time
            entries.append((folder, name, status.st_size, status.st_mtime_ns))
    return _digest(sorted(entries))


def load(path: Path, root: Path, digests: FileDigests, host: str) -> CachedPlan | None:
    """Load the cached plan.

    Args:
        path: The cache file.
        root: The project folder.
        digests: Returns the digests of files.
        host: A text that identifies the host's hardware and settings.

    Returns:
        The plan; None if there is none, the file is damaged, or something that the plan depends on has changed.

    Raises:
        OSError: A file that the plan depends on exists, but cannot be read.
    """
    try:
        stored = decode(_StoredPlan, checksummed_json.load(path), path)
    except InputError:
        return None
    if stored.basis != fingerprint(root, stored.looked_at, digests, host):
        return None
    return CachedPlan(Graph(stored.graph), stored.notes, stored.looked_at)


def save(path: Path, planned: CachedPlan, root: Path, digests: FileDigests, host: str) -> None:
    """Store a plan for `load`.

    Args:
        path: The cache file.
        planned: The plan.
        root: The project folder.
        digests: Returns the digests of files.
        host: A text that identifies the host's hardware and settings.

    Raises:
        InputError: The file cannot be written.
        DiskFull: There is no space left.
        OSError: A file that the plan depends on exists, but cannot be read.
    """
    notes = [{"step": note.step, "detail": note.detail, "warning": note.warning} for note in planned.notes]
    data = {"graph": planned.graph.to_dict(), "notes": notes, "looked_at": list(planned.looked_at)}
    checksummed_json.save(path, {**data, "basis": fingerprint(root, planned.looked_at, digests, host)})
