"""The reader of all records: parsed JSON -> frozen dataclasses, with every value checked against its annotation.

It is written here because core imports only the standard library and numpy: the process that measures on an emulated
device reads records too, and has no pydantic. `Annotated` adds what a type cannot say: ranges and lengths.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from edgekit.core.errors import InputError

T = TypeVar("T")

# What a decoder of a type does: it returns the typed value, or raises _Mismatch.
_Decoder = Callable[[Any], Any]

# No number of a record needs more than 64 bits; a longer one would overflow in numpy or in float().
_LARGEST_INT = 2**63 - 1
# TFLite joins the names of fused operators, which makes a few thousand characters.
_LONGEST_NAME = 10_000
_LONGEST_TEXT = 1_000_000
# Free-form values (options, hyperparameters) are nested three levels deep; the bound protects from a RecursionError.
_DEEPEST = 32
# How much of a value or key of the file a message repeats.
_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of a number, both ends included."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Pattern:
    """What a text must look like.

    Attributes:
        pattern: The regular expression that the whole text matches.
        title: The expression in words, for messages.
    """

    pattern: str
    title: str


@dataclasses.dataclass(frozen=True)
class NanIfNull:
    """A number that JSON cannot hold is stored as null, and is read as NaN."""


# Sizes and numbers of things.
Count = Annotated[int, Range(0, _LARGEST_INT)]
PositiveCount = Annotated[int, Range(1, _LARGEST_INT)]
# Counts of instructions and cache misses are means, hence no integers.
MeanCount = Annotated[float, Range(0, _LARGEST_INT)]
# Thirty years: what is longer is no measurement.
Milliseconds = Annotated[float, Range(0, 1e12)]
NotNegative = Annotated[float, Range(0, math.inf)]
Share = Annotated[float, Range(0, 1)]
Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "a sha256 of 64 hexadecimal digits")]
Name = Annotated[str, Pattern(f"(?s).{{0,{_LONGEST_NAME}}}", f"a text of at most {_LONGEST_NAME:,} characters")]
# What becomes a part of a path: the name of a model, a kind, a target, a device.
FileName = Annotated[
    str, Pattern(r"(?!\.{1,2}$)[^/\\\0]{1,255}", "a name of 1 to 255 characters without slashes, and not '.' or '..'")
]


class _Mismatch(Exception):
    """A value that its type does not allow, with its place from the inside to the outside."""

    def __init__(self, message: str, *place: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.place: list[str | int] = list(place)


def decode(kind: type[T], data: Any, origin: object, hint: str = "") -> T:
    """Build an object of a type from parsed JSON.

    Args:
        kind: A dataclass, or any type of its fields: `str`, `int`, `float`, `bool`, `tuple`, `Mapping`, an enumeration,
            `Literal`, unions of them, `Any` for JSON of any content.
        data: What `json.loads` returned.
        origin: The file that the data come from, for the message.
        hint: What the user can do about a wrong file, for the message.

    Returns:
        The object. A key that has a default may be missing; a field without `init` is computed, not read.

    Raises:
        InputError: A key is unknown or missing, or a value is not of its type or out of its range. The message names
            the file, the place in it, and what is allowed.
    """
    value: T = decode_any(kind, data, origin, hint)
    return value


def decode_any(kind: Any, data: Any, origin: object, hint: str = "") -> Any:
    """Do the same as `decode` for a type that mypy does not take for a class, such as `tuple[Name, ...]`."""
    try:
        return _decoder(kind)(data)
    except _Mismatch as mismatch:
        place = _format_place(mismatch.place)
        message = f"{origin}: {place}{': ' if place else ''}{mismatch.message}{'; ' if hint else ''}{hint}"
        raise InputError(message) from None


def _format_place(place: Sequence[str | int]) -> str:
    text = ""
    for part in reversed(place):
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isidentifier() and len(part) <= _SHOWN else f"[{show_value(part)}]"
            text += f".{name}" if text and not name.startswith("[") else name
    return text


def show_value(value: Any) -> str:
    """Return a value of the file for a message: in one line, in ASCII, and not longer than a line."""
    if isinstance(value, dict | list) and value:
        return "an object" if isinstance(value, dict) else "a list"
    try:
        text = ascii(value[: _SHOWN + 1] if isinstance(value, str) else value)
    except ValueError:  # Python does not convert integers of more than 4300 digits
        return "a number of more than 4300 digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}..."


def _refuse(allowed: str, value: Any) -> _Mismatch:
    return _Mismatch(f"must be {allowed} (got {show_value(value)})")


@cache
def _decoder(kind: Any) -> _Decoder:
    """Return the function that checks and converts a value of a type. Building one takes longer than using it."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if origin is Literal:
        return _one_of({value: value for value in arguments})
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin in (tuple, list):
        return _sequence(origin, arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_decoder(arguments[0]), _decoder(arguments[1]))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of({member.value: member for member in kind})
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record(kind)
    raise TypeError(f"records cannot hold a {kind}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise _refuse(f"a text of at most {_LONGEST_TEXT:,} characters", value)
    # json.loads accepts half of a surrogate pair, which no file and no terminal can hold.
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise _refuse("a text without lone surrogates", value)
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refuse("true or false", value)
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -_LARGEST_INT <= value <= _LARGEST_INT:
        raise _refuse("an integer of at most 64 bits", value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and -_LARGEST_INT <= value <= _LARGEST_INT:
        return float(value)
    raise _refuse("a finite number", value)


def _null(value: Any) -> None:
    if value is not None:
        raise _refuse("null", value)


def _any_json(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _number(value)
    if depth >= _DEEPEST:
        raise _Mismatch(f"is nested more than {_DEEPEST} levels deep")
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        try:
            if isinstance(key, str):
                _text(key)
            _any_json(item, depth + 1)
        except _Mismatch as mismatch:
            mismatch.place.append(key)
            raise
    return value


_PLAIN: dict[Any, _Decoder] = {
    str: _text,
    bool: _boolean,
    int: _integer,
    float: _number,
    type(None): _null,
    Any: _any_json,
}


def _annotated(kind: Any, rules: Sequence[Any]) -> _Decoder:
    decoded = _decoder(kind)
    for rule in rules:
        if isinstance(rule, Range):
            decoded = _in_range(decoded, rule, "an integer" if kind is int else "a number")
        elif isinstance(rule, Pattern):
            decoded = _matching(decoded, rule)
        elif isinstance(rule, NanIfNull):
            decoded = _nan_if_null(decoded)
    return decoded


def _in_range(decoded: _Decoder, rule: Range, noun: str) -> _Decoder:
    low, high = rule.low, rule.high
    ends = f"of at least {low:g}" if high in (math.inf, _LARGEST_INT) else f"from {low:g} to {high:g}"

    def check(value: Any) -> Any:
        try:
            number = decoded(value)
        except _Mismatch:
            raise _refuse(f"{noun} {ends}", value) from None
        if not low <= number <= high:
            raise _refuse(f"{noun} {ends}", value)
        return number

    return check


def _matching(decoded: _Decoder, rule: Pattern) -> _Decoder:
    matches = re.compile(rule.pattern).fullmatch

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not matches(value):
            raise _refuse(rule.title, value)
        return decoded(value)

    return check


def _nan_if_null(decoded: _Decoder) -> _Decoder:
    return lambda value: math.nan if value is None else decoded(value)


def _one_of(values: Mapping[Any, Any]) -> _Decoder:
    # A value that cannot be a key (a list) is in no table; true and 1.0 equal 1, and are not it.
    table = {(type(key), key): value for key, value in values.items()}
    allowed = f"one of {', '.join(map(str, values))}"

    def check(value: Any) -> Any:
        key = (type(value), value)
        if isinstance(value, dict | list) or key not in table:
            raise _refuse(allowed, value)
        return table[key]

    return check


def _union(members: Sequence[Any]) -> _Decoder:
    decoders = [_decoder(member) for member in members if member is not type(None)]
    nullable = len(decoders) < len(members)
    if len(decoders) == 1:
        only = decoders[0]
        return lambda value: None if value is None else only(value)

    def check(value: Any) -> Any:
        if value is None and nullable:
            return None
        messages = []
        for decoded in decoders:
            try:
                return decoded(value)
            except _Mismatch as mismatch:
                messages.append(mismatch.message.partition(" (got ")[0].removeprefix("must be "))
        raise _refuse(" or ".join(messages), value)

    return check


def _sequence(origin: Any, arguments: Sequence[Any]) -> _Decoder:
    if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _list_of(origin, _decoder(arguments[0]))
    members = [_decoder(argument) for argument in arguments]

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(members):
            raise _refuse(f"a list of {len(members)} values", value)
        return tuple(_at(index, member, item) for index, (member, item) in enumerate(zip(members, value, strict=True)))

    return check


def _list_of(origin: Any, decoded: _Decoder) -> _Decoder:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _refuse("a list", value)
        index = 0
        result = []
        try:
            for index, item in enumerate(value):  # noqa: B007 - the handler names the index
                result.append(decoded(item))
        except _Mismatch as mismatch:
            mismatch.place.append(index)
            raise
        return origin(result)

    return check


def _at(place: str | int, decoded: _Decoder, value: Any) -> Any:
    try:
        return decoded(value)
    except _Mismatch as mismatch:
        mismatch.place.append(place)
        raise


def _mapping(key_decoder: _Decoder, decoded: _Decoder) -> _Decoder:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _refuse("an object", value)
        key = ""
        result = {}
        try:
            for key, item in value.items():
                result[key_decoder(key)] = decoded(item)
        except _Mismatch as mismatch:
            mismatch.place.append(key)
            raise
        return result

    return check


def _record(cls: Any) -> _Decoder:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: _decoder(hints[field.name]) for field in dataclasses.fields(cls)}
    computed = {field.name for field in dataclasses.fields(cls) if not field.init}
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _refuse("an object", value)
        key = ""
        values = {}
        try:
            for key, item in value.items():
                values[key] = fields[key](item)
        except KeyError:
            raise _Mismatch(f"unknown key; allowed: {', '.join(sorted(fields))}", key) from None
        except _Mismatch as mismatch:
            mismatch.place.append(key)
            raise
        for name in required:
            if name not in values:
                raise _Mismatch("this key is missing", name)
        for name in computed:
            values.pop(name, None)
        try:
            return cls(**values)
        except ValueError as error:  # the class refuses a combination of values
            raise _Mismatch(str(error)) from None

    return check
