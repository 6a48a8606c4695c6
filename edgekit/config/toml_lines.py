"""The line of every key and element of a TOML text, which `tomllib` does not report for valid files."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence

# Keys and indices from the top of the file: ("models", 0, "name").
Location = tuple[int | str, ...]

# White space and comments, which TOML allows between pairs and between the elements of an array.
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_INLINE_BLANK = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Multi-line strings first. They may end with up to two quotes of their own before the closing three (TOML 1.0).
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))?'
    r"|'''.*?'''(?:'{1,2}(?!'))?"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
# A number, date or boolean, up to the delimiter that ends it.
_BARE_VALUE = re.compile(r"[^,\]}\n#]+")


def key_lines(text: str) -> dict[Location, int]:
    """Return the line of every key and element of a TOML text.

    Args:
        text: A text that `tomllib` has parsed without an error.

    Returns:
        Location -> line, counted from 1.
    """
    return _Scan(text).run()


def line_of(location: Sequence[int | str], lines: Mapping[Location, int]) -> int | None:
    """Return the line of a location.

    Args:
        location: Keys and indices from the top of the file.
        lines: What `key_lines` returned.

    Returns:
        The line of the location, or of the nearest table around it that is in the file; None if there is none.
    """
    for end in range(len(location), 0, -1):
        if tuple(location[:end]) in lines:
            return lines[tuple(location[:end])]
    return None


class _Scan:
    """One pass over a valid text, which finds keys, strings and brackets but does not interpret values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[Location, int] = {}
        self._element_counts: dict[Location, int] = {}  # array of tables -> the number of its elements so far

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

    def _record_line(self, location: Location) -> None:
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
        """Read `[a.b]` or `[[a.b]]` and return the table that the following pairs belong to."""
        start, is_array = self._at, self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        *outer, last = self._key()
        end = self._at + (2 if is_array else 1)
        location: Location = ()
        for part in outer:
            location = self._last_element((*location, part))
        location = (*location, last)
        self._at = start
        self._record_line(location)
        if is_array:
            self._element_counts[location] = self._element_counts.get(location, 0) + 1
        location = self._last_element(location)
        self._record_line(location)
        self._at = end
        return location

    def _last_element(self, location: Location) -> Location:
        """Return the last element so far if the location is an array of tables, else the location itself."""
        count = self._element_counts.get(location, 0)
        return (*location, count - 1) if count else location

    def _pair(self, table: Location) -> None:
        self._skip(_BLANK)
        start = self._at
        location = table
        key, end = self._key(), self._at
        self._at = start
        for part in key:
            location = (*location, part)
            self._record_line(location)
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
        # An array has fewer elements than the text has characters.
        for index in range(len(self._text)):
            self._skip(_BLANK)
            if self._skip_bracket("]"):
                return
            self._record_line((*location, index))
            self._value((*location, index))
            self._skip_comma()

    def _inline_table(self, location: Location) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK)
            if self._skip_bracket("}"):
                return
            self._pair(location)
            self._skip_comma()

    def _skip_bracket(self, bracket: str) -> bool:
        if not self._text.startswith(bracket, self._at):
            return False
        self._at += 1
        return True

    def _skip_comma(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
