"""Reading back what a stage wrote as JSON: of this version and no other, with every key in its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.core.errors import InputError


@contextmanager
def restoring(
    data: Any, path: Path, what: str, again: str, *, keys: Collection[str], version: int
) -> Iterator[dict[str, Any]]:
    """The data of `what` ("a bench result"), in a block that makes an object of it; `again` says what writes it anew.

    Raises InputError that names the file where it is no object of this version, has a key that is not among `keys`, or
    where the block misses one or finds another type (KeyError, TypeError).
    """
    if not isinstance(data, dict):
        raise InputError(f"{path}: not {what}")
    if data.get("schema_version") != version or set(data) - set(keys):
        raise InputError(f"{path}: not {what} of version {version}; {again}")
    try:
        yield data
    except (KeyError, TypeError) as error:
        noun = what.partition(" ")[2]
        raise InputError(f"{path}: this {noun} lacks or mistypes a key ({error})") from None
