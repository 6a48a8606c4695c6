"""The sizes of model files against limits: any files, no manifest needed. What a commit hook runs."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.atomic_files import size_of
from edgekit.core.errors import InputError
from edgekit.core.units import format_bytes, parse_bytes
from edgekit.core.values.budgets import Budget, strictest


@dataclass(frozen=True)
class FileSize:
    """One file or folder, and the strictest limit that covers it; None where none does."""

    path: Path
    size_bytes: int
    compressed_bytes: int | None
    limit_bytes: int | None
    pattern: str | None

    @property
    def passed(self) -> bool:
        """Whether it keeps within its limit."""
        return self.limit_bytes is None or self.size_bytes <= self.limit_bytes

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        size = format_bytes(self.size_bytes)
        if self.limit_bytes is None:
            return f"{self.path}: {size}, no limit covers it"
        limit = f"the limit {format_bytes(self.limit_bytes)}" + (f" of {self.pattern}" if self.pattern != "*" else "")
        return f"{self.path}: {size} {'is within' if self.passed else 'exceeds'} {limit}"


def parse_limit(text: str) -> Budget:
    """`"500 KB"`, or `"models/*.tflite=500 KB"` for the paths that match. Raises InputError."""
    pattern, equals, size = text.rpartition("=")
    try:
        limit = parse_bytes(size)
    except ValueError as error:
        raise InputError(f"--max-size {text}: {error}") from None
    if equals and not pattern:
        raise InputError(f"--max-size {text}: there is no pattern before the =")
    return Budget("size_bytes", limit, text, pattern or "*")


def measure_sizes(paths: Sequence[Path], limits: Sequence[Budget]) -> tuple[FileSize, ...]:
    """Each path's weight; a folder's is that of all files in it. Raises InputError for a path that does not exist."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return tuple(_weight(path, limits) for path in paths)


def _weight(path: Path, limits: Sequence[Budget]) -> FileSize:
    found = strictest(limits, path.as_posix())
    compressed = len(gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)) if path.is_file() else None
    limit, pattern = (int(found[0].limit), found[0].variant) if found else (None, None)
    return FileSize(path, size_of(path), compressed, limit, pattern)
