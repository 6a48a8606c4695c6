"""Reading back what a stage wrote as JSON: records of this version, and of older ones whose keys had other names."""

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
    """Check a record's version and keys, and yield its data to the block that builds the object from it.

    Args:
        data: The parsed JSON.
        path: The file that it came from, for messages.
        what: What the record is, with its article, such as "a bench result".
        again: What the user does to write the record anew.
        keys: The keys that this version knows.
        version: This version's number.
        older: For each older version that can still be read, the keys that had another name: old name -> this
            version's name.

    Raises:
        InputError: The data is no object of a readable version, has an unknown key, or the block misses a key or finds
            another type (KeyError, TypeError).
    """
    if not isinstance(data, dict):
        raise InputError(f"{path}: not {what}")
    readable = {version: {}, **(older or {})}
    found = data.get("schema_version")
    if not isinstance(found, int) or found not in readable:
        raise InputError(f"{path}: not {what} of version {version}; {again}")
    renamed = readable[found]
    decoded = {renamed.get(key, key): value for key, value in data.items()}
    if set(decoded) - set(keys):
        raise InputError(f"{path}: not {what} of version {version}; {again}")
    try:
        yield {**decoded, "schema_version": version}
    except (KeyError, TypeError) as error:
        noun = what.partition(" ")[2]
        raise InputError(f"{path}: this {noun} lacks or mistypes a key ({error})") from None
