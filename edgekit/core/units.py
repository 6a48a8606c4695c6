"""Sizes and durations as people write them. KB, MB, GB are powers of 1000; KiB, MiB, GiB powers of 1024."""

from __future__ import annotations

import re

_BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_NUMBER_UNIT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")


def _parse(text: str, units: dict[str, float] | dict[str, int], what: str) -> float:
    match = _NUMBER_UNIT.match(text)
    if match is None or match[2] not in units:
        raise ValueError(f"'{text}' is not a {what}; write a number and one of {', '.join(units)}")
    return float(match[1]) * units[match[2]]


def parse_bytes(text: str) -> int:
    """`"500 KB"` -> 500000. Raises ValueError that lists the units."""
    return round(_parse(text, _BYTES, "size"))


def parse_seconds(text: str) -> float:
    """`"2m"` -> 120.0. Raises ValueError that lists the units."""
    return _parse(text, _SECONDS, "duration")


def parse_share(text: str) -> float:
    """`"2%"` -> 0.02. Raises ValueError."""
    match = _PERCENT.match(text)
    if match is None:
        raise ValueError(f"'{text}' is not a share; write a number and %, such as 2%")
    return float(match[1]) / 100


def format_bytes(count: float) -> str:
    """Three significant digits, decimal units: 1234567 -> `1.23 MB`."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def format_memory(count: int) -> str:
    """Memory as it is built, in powers of 1024: 671088640 -> `640 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def format_ms(milliseconds: float) -> str:
    """Three significant digits with the unit that reads best: 0.01234 -> `12.3 us`."""
    for unit, size in (("ns", 1e-6), ("us", 1e-3), ("ms", 1.0)):
        if abs(milliseconds) < 999.5 * size:
            return f"{milliseconds / size:.3g} {unit}"
    seconds = milliseconds / 1000
    return f"{seconds:.3g} s" if abs(seconds) < 999.5 else f"{seconds:.0f} s"


def format_seconds(seconds: float) -> str:
    """A duration that a person waits: 4.25 -> `4.2 s`, 125 -> `2 m 5 s`, 3720 -> `1 h 2 m`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} m"


def format_count(count: float) -> str:
    """1234567 -> `1.23 M`."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 999.5 or unit == " T":
            return f"{count:.0f}" if unit == "" else f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError("unreachable")
