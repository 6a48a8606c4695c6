"""Parsing and formatting of sizes, durations, percentages and counts."""

from __future__ import annotations

import math
import re

# KB, MB and GB are powers of 1000 (SI), KiB, MiB and GiB powers of 1024 (IEC 80000-13).
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
# No sign and no exponent: a negative limit is always a mistake.
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_NUMBER_UNIT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")


def _parse(text: str, units: dict[str, float] | dict[str, int], quantity: str) -> float:
    match = _NUMBER_UNIT.match(text)
    if match is None or match[2] not in units:
        raise ValueError(f"'{text}' is not a {quantity}; write a number and one of {', '.join(units)}")
    value = float(match[1]) * units[match[2]]
    if math.isinf(value):
        raise ValueError(f"'{text[:20]}...' is too large for a {quantity}")
    return value


def parse_bytes(text: str) -> int:
    """Parse a size: `"500 KB"` -> 500000.

    Args:
        text: A number and one of B, KB, MB, GB, KiB, MiB, GiB.

    Returns:
        The size in bytes.

    Raises:
        ValueError: The text is not a size; the message lists the units.
    """
    return round(_parse(text, _BYTES, "size"))


def parse_seconds(text: str) -> float:
    """Parse a duration: `"2m"` -> 120.0.

    Args:
        text: A number and one of ms, s, m, h.

    Returns:
        The duration in seconds.

    Raises:
        ValueError: The text is not a duration; the message lists the units.
    """
    return _parse(text, _SECONDS, "duration")


def parse_share(text: str) -> float:
    """Parse a percentage: `"2%"` -> 0.02.

    Args:
        text: A number and a percent sign.

    Returns:
        The percentage as a fraction.

    Raises:
        ValueError: The text is not a percentage.
    """
    match = _PERCENT.match(text)
    if match is None:
        raise ValueError(f"'{text}' is not a percentage; write a number and %, such as 2%")
    return float(match[1]) / 100


def format_bytes(count: float) -> str:
    """Format a size with three significant digits in decimal units: 1234567 -> `1.23 MB`.

    Args:
        count: Number of bytes; may be negative or a mean.

    Returns:
        The number with its unit, B to TB.
    """
    for unit in ("B", "KB", "MB", "GB", "TB"):
        # 999.5 and more would be printed as 1e+03 with three digits, so it belongs to the next unit.
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def format_memory(count: int) -> str:
    """Format a memory size in powers of 1024, the units of memory chips: 671088640 -> `640 MiB`.

    Args:
        count: Number of bytes.

    Returns:
        The number with its unit, B to GiB.
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def format_ms(milliseconds: float) -> str:
    """Format a latency with three significant digits and the largest fitting unit: 0.01234 -> `12.3 us`.

    Args:
        milliseconds: The latency in ms.

    Returns:
        The number with its unit, ns to s.
    """
    for unit, size in (("ns", 1e-6), ("us", 1e-3), ("ms", 1.0)):
        if abs(milliseconds) < 999.5 * size:
            return f"{milliseconds / size:.3g} {unit}"
    seconds = milliseconds / 1000
    return f"{seconds:.3g} s" if abs(seconds) < 999.5 else f"{seconds:.0f} s"


def format_seconds(seconds: float) -> str:
    """Format a running time: 4.25 -> `4.2 s`, 125 -> `2 m 5 s`, 3720 -> `1 h 2 m`.

    Args:
        seconds: The running time in s.

    Returns:
        The one or two largest units.
    """
    if seconds < 59.95:  # from here on one decimal would round to 60.0 s
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} m {remainder} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} m"


def format_count(count: float) -> str:
    """Format a count with three significant digits and an SI prefix: 1234567 -> `1.23 M`.

    Args:
        count: The number to print, for example of parameters or instructions.

    Returns:
        The number with its prefix, none to T.
    """
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 999.5 or unit == " T":
            return f"{count:.0f}" if unit == "" else f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError("unreachable")
