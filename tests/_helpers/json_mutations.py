"""Every small change of a JSON document: each value replaced, each key deleted, the text cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

# As JSON text, because Python has no value for 1e400. The object is nested.
REPLACEMENTS = (
    "null", '"text"', '""', "[]", "[1]", "{}", '{"a": {"b": [null]}}', "-1", "0.5", "NaN", "Infinity", "1e400",
    "9" * 30, "9" * 5000, "true", '"\\ud800"', '"a\\u0000b"', '"../../x"', json.dumps("n" * 20_000),
    "[" * 60 + "]" * 60,
)  # fmt: skip
_MARK = "\u0001mark\u0001"

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """A changed document.

    Attributes:
        place: The value that was changed, from the top; empty for the whole text.
        change: What was done: `deleted`, `cut` or the new value.
        text: The document.
    """

    place: Place
    change: str
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.place))} {self.change[:30]!a}"


def places(data: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every value, containers included."""
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def at(data: Any, place: Place) -> Any:
    for key in place:
        data = data[key]
    return data


def mutations(text: str) -> Iterator[Mutation]:
    """Yield every mutation of a document."""
    data = json.loads(text)
    for place in places(data):
        changed = deepcopy(data)
        *outer, last = place
        at(changed, tuple(outer))[last] = _MARK
        marked = json.dumps(changed)
        for value in REPLACEMENTS:
            yield Mutation(place, value, marked.replace(json.dumps(_MARK), value))
        if isinstance(last, str):
            del at(changed, tuple(outer))[last]
            yield Mutation(place, "deleted", json.dumps(changed))
            at(changed, tuple(outer))["unknown key"] = 1
            yield Mutation((*outer, "unknown key"), "added", json.dumps(changed))
    for end in range(0, len(text), max(1, len(text) // 50)):
        yield Mutation((), "cut", text[:end])
    for value in REPLACEMENTS:
        yield Mutation((), value, value)
