"""A plan is made again only when something that it was made from has changed: most runs need not think it anew."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import Graph
from edgekit.core.events import Noted
from edgekit.core.records import checksummed_json

_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class CachedPlan:
    """A graph, what its making noted, and the paths that were looked at for it, relative to the root or absolute."""

    graph: Graph
    notes: tuple[Noted, ...]
    looked_at: tuple[str, ...]


def fingerprint(root: Path, looked_at: Iterable[str], digests: FileDigests, host: str) -> dict[str, Any]:
    """All that a plan depends on: the files that were looked at, what else stands beside those of code, what is
    installed, edgekit itself, and this host."""
    looked_at = tuple(looked_at)
    folders = {str((root / path).parent) for path in looked_at}
    return {
        "root": str(root),
        "host": host,
        "python": [sys.version, *sys.path],
        "edgekit": _own_code(),
        "installed": _installed(),
        "files": {path: digests.of(path) for path in looked_at},
        "folders": {folder: _names(folder) for folder in sorted(folders)},
    }


def _digest(items: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(str, items)).encode()).hexdigest()


def _names(folder: str) -> str:
    """What stands in a folder, but for what tools leave there: a new module may take an old one's place."""
    try:
        return _digest(sorted(name for name in os.listdir(folder) if name[0] != "." and name != "__pycache__"))  # noqa: PTH208
    except OSError:
        return ""


def _installed() -> str:
    """Names and versions of everything that is installed, as the names of folders tell them: none is opened."""
    names: set[str] = set()
    for folder in sys.path:
        try:
            names.update(name for name in os.listdir(folder or ".") if name.endswith(("-info", ".egg-link")))  # noqa: PTH208
        except OSError:
            continue
    return _digest(sorted(names))


def _own_code() -> str:
    """The files of edgekit itself, by size and time: who works on it does not change the version each time."""
    found = []
    for folder, folders, names in os.walk(_PACKAGE):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - pathlib takes twice the time
            found.append((folder, name, status.st_size, status.st_mtime_ns))
    return _digest(sorted(found))


def load(path: Path, root: Path, digests: FileDigests, host: str) -> CachedPlan | None:
    """The plan that was kept; None where there is none, or where it would come out otherwise now."""
    data: Mapping[str, Any] | None = checksummed_json.load(path)
    if data is None or data.get("basis") != fingerprint(root, data["looked_at"], digests, host):
        return None
    notes = tuple(Noted(**item) for item in data["notes"])
    return CachedPlan(Graph.from_dict(data["graph"]), notes, tuple(data["looked_at"]))


def save(path: Path, planned: CachedPlan, root: Path, digests: FileDigests, host: str) -> None:
    """Keeps a plan. Raises InputError or DiskFull."""
    notes = [{"step": item.step, "detail": item.detail, "warning": item.warning} for item in planned.notes]
    data = {"graph": planned.graph.to_dict(), "notes": notes, "looked_at": list(planned.looked_at)}
    checksummed_json.save(path, {**data, "basis": fingerprint(root, planned.looked_at, digests, host)})
