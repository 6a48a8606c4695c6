"""sha256 of files and folders, remembered by what the file system says of them, so that unchanged ones are not read.

A remembered digest is believed while device, inode, size, mtime and ctime are the same, and only if the file was older
than the file system's clock can tell apart when it was read. A file that is written twice within one tick looks the
same before and after the second time: such a one is read again the next time (git calls them racy).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.records import checksummed_json

ABSENT = "absent"
_TICK_NS = 20_000_000  # the kernel stamps files with its own clock's ticks: at most 10 ms
_COARSE_TICK_NS = 2_100_000_000  # FAT and some network file systems count in whole or even seconds
_SECOND_NS = 1_000_000_000

Stamp = tuple[int, ...]


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _settled(status: os.stat_result, now_ns: int) -> bool:
    """Whether a write that is still to come will change the stamp."""
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    tick = _COARSE_TICK_NS if status.st_mtime_ns % _SECOND_NS == 0 else _TICK_NS
    return latest + tick < now_ns


class FileDigests:
    """Digests of paths below a root, by their stamps; `save` keeps them for the next run.

    A damaged store is an empty one. Several threads may ask at a time.
    """

    def __init__(self, root: Path, store: Path | None = None) -> None:
        self._root = root
        self._store = store
        self._known: dict[str, tuple[Stamp, str]] = {}
        self._used: set[str] = set()
        self._changed = False
        self.read = 0
        """How many files were read, because nothing was known of them."""
        if store is not None:
            self._known = _load(store)

    def of(self, path: str) -> str:
        """The digest of a file, of a folder (names and digests of everything in it), or `ABSENT`.

        Paths are relative to the root, or absolute. Raises OSError for what is there and cannot be read.
        """
        whole = self._root / path
        try:
            status = whole.stat()
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        if stat.S_ISDIR(status.st_mode):
            return self._of_folder(whole)
        return self._of_file(whole, status)

    def of_part(self, path: str, only: tuple[str, ...], without: tuple[str, ...]) -> str:
        """The digest of some keys of a TOML or JSON file: those of `only`, or all but those of `without`.

        Keys of inner tables are written with a dot. What is no TOML or JSON has the digest of its bytes.
        """
        whole = self.of(path)
        if whole == ABSENT or not (only or without):
            return whole
        name = f"{whole} {' '.join(only)}-{' '.join(without)}"
        self._used.add(name)
        if name not in self._known:
            self._known[name] = (), _digest_of_part(self._root / path, only, without) or whole
            self._changed = True
        return self._known[name][1]

    def _of_folder(self, folder: Path) -> str:
        hasher = hashlib.sha256()
        for path in _files(folder):
            digest = self._of_file(path, path.stat())
            hasher.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
        return hasher.hexdigest()

    def _of_file(self, path: Path, status: os.stat_result) -> str:
        name = str(path)
        self._used.add(name)
        known = self._known.get(name)
        if known is not None and known[0] == _stamp(status):
            return known[1]
        now_ns = time.time_ns()
        digest = sha256_file(path)
        self.read += 1
        self._changed = True
        # What changed while it was read is not remembered either: its stamp is no longer this one.
        if _settled(status, now_ns) and _stamp(path.stat()) == _stamp(status):
            self._known[name] = _stamp(status), digest
        else:
            self._known.pop(name, None)
        return digest

    def save(self) -> None:
        """Keeps what was asked for in this run. Raises InputError or DiskFull when it cannot be written."""
        if self._store is None or not (self._changed or set(self._known) - self._used):
            return
        kept = {name: [list(stamp), digest] for name, (stamp, digest) in self._known.items() if name in self._used}
        checksummed_json.save(self._store, {"files": kept})
        self._changed = False


def _load(store: Path) -> dict[str, tuple[Stamp, str]]:
    """What was kept; nothing where a byte of it is not what was written."""
    try:
        data = checksummed_json.load(store) or {"files": {}}
        return {name: (tuple(stamp), digest) for name, (stamp, digest) in data["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _files(folder: Path) -> Iterator[Path]:
    """Every file below, in a fixed order; what Python and version control keep there is left out."""
    for path in sorted(folder.iterdir()):
        if path.name in ("__pycache__", ".git"):
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _digest_of_part(path: Path, only: tuple[str, ...], without: tuple[str, ...]) -> str | None:
    try:
        content = path.read_bytes()
        data = tomllib.loads(content.decode()) if path.suffix == ".toml" else json.loads(content)
        data = {key: data[key] for key in only if key in data} if only else data
        for key in without:
            _remove(data, key.split("."))
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _remove(data: Any, key: list[str]) -> None:
    *outer, last = key
    for part in outer:
        data = data.get(part, {})
    data.pop(last, None)
