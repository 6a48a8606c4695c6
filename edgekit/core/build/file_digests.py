"""A cache of the sha256 digests of files and folders, so that unchanged files are not read again.

A cached digest is valid while the file's device, inode, size, mtime and ctime are unchanged. A digest is cached only if
the file was older than one tick of the file system's clock when it was read: a second write within the same tick would
leave the times unchanged. Git calls such files racy (Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import InputError
from edgekit.core.records import checksummed_json
from edgekit.core.values.typed_json import decode

# Takes the place of a missing file's digest, in step records too.
ABSENT = "absent"
# Linux sets file times from its coarse clock, whose tick is at most 10 ms (CONFIG_HZ=100); twice that for safety.
_TICK_NS = 20_000_000
# FAT stores times in units of 2 s, and some network file systems in units of 1 s.
_COARSE_TICK_NS = 2_100_000_000
_SECOND_NS = 1_000_000_000

# Device, inode, size in bytes, mtime and ctime in ns.
Stamp = tuple[int, ...]


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _settled(status: os.stat_result, now_ns: int) -> bool:
    """Return whether any later write changes the stamp."""
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    # A time in whole seconds indicates a file system with coarse times.
    tick = _COARSE_TICK_NS if status.st_mtime_ns % _SECOND_NS == 0 else _TICK_NS
    return latest + tick < now_ns


class FileDigests:
    """A cache of the digests of files, which `save` stores for the next run. Threads may share an instance.

    Attributes:
        read: The number of files that were read because no valid digest was cached.
    """

    def __init__(self, root: Path, store: Path | None = None) -> None:
        """Load the stored digests.

        Args:
            root: The folder that relative paths are resolved against.
            store: The JSON file of the stored digests; a damaged one counts as empty. None: nothing is stored.
        """
        self._root = root
        self._store = store
        self._cached: dict[str, tuple[Stamp, str]] = {}
        self._used: set[str] = set()
        self._changed = False
        self.read = 0
        if store is not None:
            self._cached = _load(store)

    def of(self, path: str) -> str:
        """Return the digest of a file or folder.

        Args:
            path: The path, absolute or relative to the root.

        Returns:
            In hexadecimal, the sha256 of the file's content, or of the names and digests of all files in the folder;
            `ABSENT` if there is neither.

        Raises:
            OSError: The path exists, but cannot be read.
        """
        absolute = self._root / path
        try:
            status = absolute.stat()
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        if stat.S_ISDIR(status.st_mode):
            return self._of_folder(absolute)
        if not stat.S_ISREG(status.st_mode):
            return ABSENT  # a device or a FIFO keeps nothing that could be read again
        return self._of_file(absolute, status)

    def of_part(self, path: str, only: tuple[str, ...], without: tuple[str, ...]) -> str:
        """Return the digest of some keys of a TOML or JSON file.

        Args:
            path: The path, absolute or relative to the root.
            only: The top-level keys to include; empty for all.
            without: The keys to exclude; `outer.inner` is a key of an inner table.

        Returns:
            In hexadecimal, the sha256 of these keys and their values; the digest of all bytes if both key lists are
            empty or the content is not a TOML or JSON table; `ABSENT` if there is no such file.

        Raises:
            OSError: The path exists, but cannot be read.
        """
        file_digest = self.of(path)
        if file_digest == ABSENT or not (only or without):
            return file_digest
        # The content identifies the entry, so that it needs no stamp.
        name = f"{file_digest} {' '.join(only)}-{' '.join(without)}"
        self._used.add(name)
        if name not in self._cached:
            self._cached[name] = (), _digest_of_part(self._root / path, only, without) or file_digest
            self._changed = True
        return self._cached[name][1]

    def _of_folder(self, folder: Path) -> str:
        hasher = hashlib.sha256()
        for path in _files(folder):
            digest = self._of_file(path, path.stat())
            hasher.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
        return hasher.hexdigest()

    def _of_file(self, path: Path, status: os.stat_result) -> str:
        name = str(path)
        self._used.add(name)
        entry = self._cached.get(name)
        if entry is not None and entry[0] == _stamp(status):
            return entry[1]
        now_ns = time.time_ns()
        digest = sha256_file(path)
        self.read += 1
        self._changed = True
        # A file that changed while it was read is not cached either: the digest may mix both contents.
        if _settled(status, now_ns) and _stamp(path.stat()) == _stamp(status):
            self._cached[name] = _stamp(status), digest
        else:
            self._cached.pop(name, None)
        return digest

    def save(self) -> None:
        """Store the digests that were requested from this instance; drop all others.

        Raises:
            InputError: The store cannot be written.
            DiskFull: There is no space left.
        """
        if self._store is None or not (self._changed or set(self._cached) - self._used):
            return
        files = {name: [list(stamp), digest] for name, (stamp, digest) in self._cached.items() if name in self._used}
        checksummed_json.save(self._store, {"files": files})
        self._changed = False


@dataclass(frozen=True)
class _Stored:
    files: dict[str, tuple[tuple[int, ...], str]]


def _load(store: Path) -> dict[str, tuple[Stamp, str]]:
    """Return the stored digests; none if the file is missing or its checksum is wrong."""
    try:
        return decode(_Stored, checksummed_json.load(store), store).files
    except InputError:
        return {}


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder, sorted, without Python's bytecode cache and git's files."""
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
        if not isinstance(data, dict):
            return None
        data = {key: data[key] for key in only if key in data} if only else data
        for key in without:
            _remove(data, key.split("."))
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _remove(data: Any, key: list[str]) -> None:
    *outer, last = key
    for part in outer:
        data = data.get(part) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(last, None)
