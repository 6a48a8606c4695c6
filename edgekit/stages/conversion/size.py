"""Check of file sizes against limits, for any files, with or without a manifest; suitable for a commit hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.atomic_files import size_of
from edgekit.core.environment.bounded_files import compressed_size
from edgekit.core.errors import InputError
from edgekit.core.units import format_bytes, parse_bytes
from edgekit.core.values.budgets import Budget, strictest


@dataclass(frozen=True)
class FileSize:
    """The size of one file or folder, and the limit that applies to it.

    Attributes:
        path: The file or folder.
        size_bytes: Its size in bytes; of a folder, that of all files in it.
        compressed_bytes: Its size after gzip in bytes; None for a folder.
        limit_bytes: The strictest limit whose pattern matches, in bytes, or None.
        pattern: The pattern of that limit, or None.
    """

    path: Path
    size_bytes: int
    compressed_bytes: int | None
    limit_bytes: int | None
    pattern: str | None

    @property
    def passed(self) -> bool:
        """Whether the size is within the limit."""
        return self.limit_bytes is None or self.size_bytes <= self.limit_bytes

    @property
    def sentence(self) -> str:
        """The result in words."""
        size = format_bytes(self.size_bytes)
        if self.limit_bytes is None:
            return f"{self.path}: {size}, no limit applies"
        limit = f"the limit {format_bytes(self.limit_bytes)}" + (f" of {self.pattern}" if self.pattern != "*" else "")
        return f"{self.path}: {size} {'is within' if self.passed else 'exceeds'} {limit}"


def parse_limit(text: str) -> Budget:
    """Parse a size limit.

    Args:
        text: A size such as `500 KB`, or `models/*.tflite=500 KB` for the paths that match a pattern.

    Raises:
        InputError: The size is invalid, or the pattern is empty.
    """
    pattern, equals, size = text.rpartition("=")
    try:
        limit = parse_bytes(size)
    except ValueError as error:
        raise InputError(f"--max-size {text}: {error}") from None
    if equals and not pattern:
        raise InputError(f"--max-size {text}: the pattern before '=' is empty; write PATTERN=SIZE")
    return Budget("size_bytes", limit, text, pattern or "*")


def measure_sizes(paths: Sequence[Path], limits: Sequence[Budget]) -> tuple[FileSize, ...]:
    """Measure files and folders against limits.

    Args:
        paths: The files and folders.
        limits: The limits.

    Returns:
        The size of each path, in the order of `paths`.

    Raises:
        InputError: A path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return tuple(_measure(path, limits) for path in paths)


def _measure(path: Path, limits: Sequence[Budget]) -> FileSize:
    matches = strictest(limits, path.as_posix())
    compressed = None if path.is_dir() else compressed_size(path)
    limit, pattern = (int(matches[0].limit), matches[0].variant) if matches else (None, None)
    return FileSize(path, size_of(path), compressed, limit, pattern)
