"""Decoding of versioned JSON records: of the current version, and of older ones whose keys had other names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgekit.core.errors import InputError
from edgekit.core.values.typed_json import decode

T = TypeVar("T")


def decode_versioned(
    cls: type[T],
    data: Any,
    path: Path,
    what: str,
    again: str,
    *,
    version: int,
    older: Mapping[int, Mapping[str, str]] | None = None,
    derived: Collection[str] = (),
    always: Collection[str] = (),
) -> T:
    """Decode a record of the current version, or of an older one.

    Args:
        cls: The dataclass of the current version, with a field `schema_version`.
        data: The parsed JSON.
        path: The file that it came from, for error messages.
        what: What the record is, with its article, such as "a bench result".
        again: What the user has to do to write the record again.
        version: The number of the current version.
        older: Older version that can still be read -> the keys that had another name: old name -> current name.
        derived: Keys for readers of the JSON, which are ignored because they follow from the others.
        always: Keys that have a default, but are in every record of the current version.

    Returns:
        The record.

    Raises:
        InputError: The data are not an object of a readable version, a key is unknown or missing, or a value is not of
            its type or out of its range; the message names the place in the file.
    """
    if not isinstance(data, dict):
        raise InputError(f"{path}: not {what}")
    readable = {version: {}, **(older or {})}
    data_version = data.get("schema_version")
    if type(data_version) is not int or data_version not in readable:
        raise InputError(f"{path}: not {what} of version {version}; {again}")
    for key in always if data_version == version else ():
        if key not in data:
            raise InputError(f"{path}: {key}: this key is missing; {again}")
    renamed = readable[data_version]
    values = {renamed.get(key, key): value for key, value in data.items() if key not in derived}
    return decode(cls, {**values, "schema_version": version}, path, again)
