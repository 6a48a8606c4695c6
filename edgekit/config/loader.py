"""TOML into frozen dataclasses. pydantic validates; the sentence names the file, the key and what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from edgekit.config.toml_lines import Location, key_lines, line_of
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError

T = TypeVar("T")
Where = Callable[[Sequence[int | str]], str]
"""The file, and where it is known the line, of a location in it."""
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")

STRICT = ConfigDict(extra="forbid", strict=True)
"""For `__pydantic_config__` of every dataclass that stands for a table of a file."""


@dataclasses.dataclass(frozen=True)
class SourceMapped(Generic[T]):
    """What stands in a file, and in which line each key and element of it stands."""

    path: Path
    value: T
    lines: Mapping[Location, int]

    def where(self, location: Sequence[int | str]) -> str:
        """`edgekit.toml: line 7`"""
        line = line_of(location, self.lines)
        return str(self.path) if line is None else f"{self.path}: line {line}"

    def error(self, location: Sequence[int | str], message: str) -> InputError:
        """The error for what stands at a location."""
        return InputError(f"{self.where(location)}: {'.'.join(map(str, location))}: {message}")


def read_toml(path: Path, cls: type[T], what: str) -> T:
    """The file as a `cls`. Raises InputError that names the file and the key."""
    return validate(_parsed(path, what)[0], cls, str(path))


def read_located(path: Path, cls: type[T], what: str) -> SourceMapped[T]:
    """The file as a `cls`, with its lines. Raises InputError that names the file, the line and the key."""
    data, text = _parsed(path, what)
    file = SourceMapped(path, data, key_lines(text))
    return SourceMapped(path, validate(data, cls, file.where), file.lines)


def _parsed(path: Path, what: str) -> tuple[dict[str, Any], str]:
    content = read_bytes(path, what)
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this {what} is not valid TOML ({error})") from None


def validate(data: Any, cls: type[T], where: str | Where) -> T:
    """The data as a `cls`. Raises InputError with the first thing that is wrong."""
    kind: Any = cls
    try:
        # By way of JSON: strict validation then takes arrays for tuples and objects for dataclasses, and nothing else.
        found: T = _adapter(kind).validate_json(json.dumps(data, default=_no_date))
        return found
    except ValidationError as error:
        raise InputError(_sentence(error, cls, where)) from None


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    """Making one takes 20 ms, and a check reads three files."""
    return TypeAdapter(cls)


def _no_date(value: Any) -> Any:
    """JSON has no dates, and no key here takes one: as an object it is refused wherever it stands."""
    return {"date": str(value)}


def _sentence(error: ValidationError, cls: type, origin: str | Where) -> str:
    # A misspelt key is also a missing one: what the person did write is the better clue.
    first = min(error.errors(include_url=False), key=lambda item: item["type"] not in _UNKNOWN)
    location = [part for part in first["loc"][:-1] if not _is_tag(part)] + [
        part for part in first["loc"][-1:] if first["type"] in _UNKNOWN or not _is_tag(part)
    ]
    key = ".".join(str(part) for part in location)
    where = origin if isinstance(origin, str) else origin(location)
    if first["type"] in _UNKNOWN:
        allowed = _allowed(cls, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), allowed, 2)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        return f"{where}: {key}: unknown key; allowed: {', '.join(allowed)}{hint}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{where}: {key}: this key is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    given = first.get("input")
    got = "" if isinstance(given, dict) else f" (got {given!r})"
    return f"{where}: {key or 'file'}: {message[:1].lower()}{message[1:]}{got}"


def _is_tag(part: int | str) -> bool:
    """pydantic puts the names of a union's members into the location; they are no keys of the file."""
    return isinstance(part, str) and (part.endswith("]") or part in ("str", "int", "float", "none"))


def _allowed(cls: Any, location: list[int | str]) -> list[str]:
    for part in location:
        cls = _inside(cls, part)
    return sorted(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else []


def _inside(cls: Any, part: int | str) -> Any:
    """The type of an element: a field of a dataclass, an item of a tuple, a value of a mapping."""
    if dataclasses.is_dataclass(cls):
        return _unwrapped(typing.get_type_hints(cls).get(str(part)))
    arguments = typing.get_args(cls)
    return _unwrapped(arguments[0 if isinstance(part, int) else -1]) if arguments else None


def _unwrapped(kind: Any) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(item for item in typing.get_args(kind) if item is not type(None))
    return kind
