"""Loading TOML files into frozen dataclasses, with errors that name file, line, key and the allowed values."""

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

# Formats the file, and the line if it is known, of a location in the file.
FormatLocation = Callable[[Sequence[int | str]], str]

# pydantic's error types for an unknown key: of a mapping, and of a dataclass's constructor.
_UNKNOWN_KEY_ERRORS = ("extra_forbidden", "unexpected_keyword_argument")

# edgekit's own files are nested five levels deep.
_DEEPEST = 32

# The `__pydantic_config__` of every dataclass that describes a table of a file: unknown keys and conversions of types
# are refused, and so are nan and inf, which TOML can hold.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True)
class SourceMapped(Generic[T]):
    """The content of a file, with the line of each key and element.

    Attributes:
        path: The file.
        value: The validated content.
        lines: Location -> line number, counted from 1.
    """

    path: Path
    value: T
    lines: Mapping[Location, int]

    def where(self, location: Sequence[int | str]) -> str:
        """Return the file and the line of a location, such as `edgekit.toml: line 7`.

        Args:
            location: Keys and indices from the top of the file.

        Returns:
            The path and the line of the location or of the nearest table around it; the path alone if there is none.
        """
        line = line_of(location, self.lines)
        return str(self.path) if line is None else f"{self.path}: line {line}"

    def error(self, location: Sequence[int | str], message: str) -> InputError:
        """Create an error about a location.

        Args:
            location: Keys and indices from the top of the file.
            message: What is wrong, what is allowed and what to do.

        Returns:
            The error, which names the file, the line and the key.
        """
        return InputError(f"{self.where(location)}: {'.'.join(map(str, location))}: {message}")


def read_toml(path: Path, cls: type[T], what: str) -> T:
    """Read a TOML file into a dataclass.

    Args:
        path: The file.
        cls: The dataclass, with `__pydantic_config__ = STRICT`.
        what: What the file is, for error messages, such as "model description".

    Returns:
        The validated content.

    Raises:
        InputError: The file is missing, empty or not TOML, or a key or value is wrong; names the file and the key.
    """
    return validate(_parse_toml(path, what)[0], cls, str(path))


def read_toml_values(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file without a schema.

    Args:
        path: The file.
        what: What the file is, for error messages.

    Returns:
        Its content.

    Raises:
        InputError: The file is missing, empty or not TOML.
    """
    return _parse_toml(path, what)[0]


def read_source_mapped(path: Path, cls: type[T], what: str) -> SourceMapped[T]:
    """Read a TOML file into a dataclass, and keep the line of each key.

    Args:
        path: The file.
        cls: The dataclass, with `__pydantic_config__ = STRICT`.
        what: What the file is, for error messages, such as "pipeline".

    Returns:
        The validated content and its lines.

    Raises:
        InputError: As `read_toml`, but it also names the line.
    """
    data, text = _parse_toml(path, what)
    file = SourceMapped(path, data, key_lines(text))
    return SourceMapped(path, validate(data, cls, file.where), file.lines)


def _parse_toml(path: Path, what: str) -> tuple[dict[str, Any], str]:
    content = read_bytes(path, what)
    try:
        # tomllib drops carriage returns itself; key_lines needs the same text.
        text = content.decode("utf-8").replace("\r\n", "\n")
        data = tomllib.loads(text)
        _check_depth(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this {what} is not valid TOML ({error})") from None
    return data, text


def _check_depth(data: Any) -> None:
    """Raise ValueError for deep nesting: a dotted key of thousands of parts needs no recursion to be parsed."""
    level = [data]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def validate(data: Any, cls: type[T], where: str | FormatLocation) -> T:
    """Convert parsed data to a dataclass.

    Args:
        data: What `tomllib` or `json` returned.
        cls: The dataclass, with `__pydantic_config__ = STRICT`.
        where: The file's name for error messages, or a function that adds the line of a location to it.

    Returns:
        The validated content.

    Raises:
        InputError: A key or value is wrong; describes the first one.
    """
    kind: Any = cls
    try:
        # Through JSON: in strict mode only JSON input accepts arrays for tuples and objects for dataclasses.
        value: T = _adapter(kind).validate_json(json.dumps(data, default=_date_as_object))
        return value
    except ValidationError as error:
        raise InputError(_error_message(error, cls, where)) from None


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    """Return the adapter of a dataclass, cached: creating one takes 20 ms, and a check reads three files."""
    return TypeAdapter(cls)


def _date_as_object(value: Any) -> Any:
    """Return a TOML date as a JSON object. JSON has no dates; no key accepts such an object, so that it is refused."""
    return {"date": str(value)}


def _error_message(error: ValidationError, cls: type, origin: str | FormatLocation) -> str:
    # A misspelt key is reported twice, as unknown and as missing: the key that the user wrote is the better clue.
    first = min(error.errors(include_url=False), key=lambda details: details["type"] not in _UNKNOWN_KEY_ERRORS)
    is_unknown_key = first["type"] in _UNKNOWN_KEY_ERRORS
    # The last part of an unknown key's location is the key itself, even if it is spelt like a type.
    location = [part for part in first["loc"][:-1] if not _is_union_tag(part)] + [
        part for part in first["loc"][-1:] if is_unknown_key or not _is_union_tag(part)
    ]
    key = ".".join(str(part) for part in location)
    where = origin if isinstance(origin, str) else origin(location)
    if is_unknown_key:
        allowed = _allowed_keys(cls, location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), allowed, 2)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        return f"{where}: {key}: unknown key; allowed: {', '.join(allowed)}{hint}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{where}: {key}: this key is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    value = first.get("input")
    # A whole table would hide the message.
    got = "" if isinstance(value, dict) else f" (got {value!r})"
    return f"{where}: {key or 'file'}: {message[:1].lower()}{message[1:]}{got}"


def _is_union_tag(part: int | str) -> bool:
    """Return whether a part of pydantic's location is the name of a union's member, which is not a key of the file."""
    return isinstance(part, str) and (part.endswith("]") or part in ("str", "int", "float", "none"))


def _allowed_keys(cls: Any, location: list[int | str]) -> list[str]:
    for part in location:
        cls = _element_type(cls, part)
    return sorted(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else []


def _element_type(cls: Any, part: int | str) -> Any:
    """Return the type of an element: a field of a dataclass, an item of a tuple, a value of a mapping."""
    if dataclasses.is_dataclass(cls):
        return _without_none(typing.get_type_hints(cls).get(str(part)))
    arguments = typing.get_args(cls)
    return _without_none(arguments[0 if isinstance(part, int) else -1]) if arguments else None


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(member for member in typing.get_args(kind) if member is not type(None))
    return kind
