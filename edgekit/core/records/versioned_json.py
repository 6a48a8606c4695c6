"""Decoding of versioned JSON records: of the current version, and of older ones whose keys had other names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.core.errors import InputError


@contextmanager
def decode_versioned(
    data: Any,
    path: Path,
    what: str,
    again: str,
    *,
    keys: Collection[str],
    version: int,
    older: Mapping[int, Mapping[str, str]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Check a record's version and keys, and yield its values to the block that builds the object.

    Args:
        data: The parsed JSON.
        path: The file that it came from, for error messages.
        what: What the record is, with its article, such as "a bench result".
        again: What the user has to do to write the record again.
        keys: The keys of the current version.
        version: The number of the current version.
        older: Older version that can still be read -> the keys that had another name: old name -> current name.

    Yields:
        The values under their current names, with the current `schema_version`.

    Raises:
        InputError: The data are not an object of a readable version, or a key is unknown, missing or of the wrong type
            (the block raises KeyError or TypeError).
    """
    if not isinstance(data, dict):
        raise InputError(f"{path}: not {what}")
    readable = {version: {}, **(older or {})}
    data_version = data.get("schema_version")
    if not isinstance(data_version, int) or data_version not in readable:
        raise InputError(f"{path}: not {what} of version {version}; {again}")
    renamed = readable[data_version]
    decoded = {renamed.get(key, key): value for key, value in data.items()}
    if set(decoded) - set(keys):
        raise InputError(f"{path}: not {what} of version {version}; {again}")
    try:
        yield {**decoded, "schema_version": version}
    except (KeyError, TypeError) as error:
        noun = what.partition(" ")[2]
        raise InputError(f"{path}: this {noun} has a missing or mistyped key ({error})") from None
