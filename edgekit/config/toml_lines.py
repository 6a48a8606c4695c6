"""The line of every key and element of a TOML text: tomllib tells only where the syntax is broken."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence

Location = tuple[int | str, ...]
"""Keys and indices from the top of the file: ("models", 0, "name")."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_INLINE_BLANK = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))?'
    r"|'''.*?'''(?:'{1,2}(?!'))?"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_VALUE = re.compile(r"[^,\]}\n#]+")


def key_lines(text: str) -> dict[Location, int]:
    """Location -> line, counted from 1, of everything in a text that tomllib has parsed without an error."""
    return _Scan(text).run()


def line_of(location: Sequence[int | str], lines: Mapping[Location, int]) -> int | None:
    """The line of a location, or of the nearest table around it that stands in the file."""
    for end in range(len(location), 0, -1):
        if tuple(location[:end]) in lines:
            return lines[tuple(location[:end])]
    return None


class _Scan:
    """One pass over a valid text: strings and brackets are told apart, values are not looked into."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[Location, int] = {}
        self._elements: dict[Location, int] = {}  # an array of tables -> how many of them were opened

    def run(self) -> dict[Location, int]:
        table: Location = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match.group()

    def _note(self, location: Location) -> None:
        self._lines.setdefault(location, bisect_right(self._breaks, self._at - 1) + 1)

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._skip(_INLINE_BLANK)
            quoted = self._skip(_STRING)
            parts.append(tomllib.loads(f"k = {quoted}")["k"] if quoted else self._skip(_BARE_KEY))
            self._skip(_INLINE_BLANK)
            if not self._text.startswith(".", self._at):
                return tuple(parts)
            self._at += 1

    def _header(self) -> Location:
        """`[a.b]` or `[[a.b]]`: the table that the following pairs are in."""
        start, many = self._at, self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        *outer, last = self._key()
        end = self._at + (2 if many else 1)
        location: Location = ()
        for part in outer:
            location = self._element((*location, part))
        location = (*location, last)
        self._at = start
        self._note(location)
        if many:
            self._elements[location] = self._elements.get(location, 0) + 1
        location = self._element(location)
        self._note(location)
        self._at = end
        return location

    def _element(self, location: Location) -> Location:
        """The last element so far, where the location is an array of tables."""
        count = self._elements.get(location, 0)
        return (*location, count - 1) if count else location

    def _pair(self, table: Location) -> None:
        self._skip(_BLANK)
        start = self._at
        location = table
        key, end = self._key(), self._at
        self._at = start
        for part in key:
            location = (*location, part)
            self._note(location)
        self._at = end + 1  # the equals sign
        self._value(location)

    def _value(self, location: Location) -> None:
        self._skip(_INLINE_BLANK)
        opening = self._text[self._at]
        if opening == "[":
            self._items(location)
        elif opening == "{":
            self._inline_table(location)
        elif not self._skip(_STRING):
            self._skip(_BARE_VALUE)

    def _items(self, location: Location) -> None:
        self._at += 1
        for index in range(len(self._text)):
            self._skip(_BLANK)
            if self._closed("]"):
                return
            self._note((*location, index))
            self._value((*location, index))
            self._comma()

    def _inline_table(self, location: Location) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK)
            if self._closed("}"):
                return
            self._pair(location)
            self._comma()

    def _closed(self, bracket: str) -> bool:
        if not self._text.startswith(bracket, self._at):
            return False
        self._at += 1
        return True

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
