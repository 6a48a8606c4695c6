"""Parsing and formatting of sizes, durations, percentages and counts."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core import units

SEEDED = settings(derandomize=True, max_examples=100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 B", 0),
        ("500 KB", 500_000),
        ("500KB", 500_000),
        (" 1.5 MB ", 1_500_000),
        ("2 GB", 2_000_000_000),
        ("640 KiB", 655_360),
        ("1 MiB", 1_048_576),
        ("0.5 GiB", 536_870_912),
    ],
)
def test_a_size_is_parsed_in_its_unit(text, expected):
    size = units.parse_bytes(text)
    assert size == expected
    assert isinstance(size, int)


@pytest.mark.parametrize("text", ["", "500", "KB", "-5 KB", "1e3 KB", "5 kb", "5 KBs", "5 K B", "1.2.3 MB", ".5 MB"])
def test_an_invalid_size_is_rejected_with_the_list_of_units(text):
    with pytest.raises(ValueError) as caught:
        units.parse_bytes(text)
    assert str(caught.value) == (f"'{text}' is not a size; write a number and one of B, KB, MB, GB, KiB, MiB, GiB")


@pytest.mark.parametrize(("text", "seconds"), [("250 ms", 0.25), ("1.5s", 1.5), ("2m", 120.0), ("1 h", 3600.0)])
def test_a_duration_is_parsed_in_its_unit(text, seconds):
    assert units.parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["10", "2 min", "-1 s", "1 MS", "forever"])
def test_an_invalid_duration_is_rejected_with_the_list_of_units(text):
    with pytest.raises(ValueError) as caught:
        units.parse_seconds(text)
    assert str(caught.value) == f"'{text}' is not a duration; write a number and one of ms, s, m, h"


@SEEDED
@given(st.integers(0, 10**11))
def test_a_formatted_size_parses_back_within_half_a_percent(count):
    assert abs(units.parse_bytes(units.format_bytes(count)) - count) <= 0.00501 * count


@SEEDED
@given(st.integers(0, 2**40))
def test_a_formatted_memory_size_parses_back_within_a_thousandth(count):
    assert abs(units.parse_bytes(units.format_memory(count)) - count) <= 0.00051 * count + 1


@SEEDED
@given(st.integers(0, 10**9))
def test_integer_sizes_parse_back_exactly_in_every_unit(count):
    assert units.parse_bytes(f"{count} B") == count
    assert units.parse_bytes(f"{count} KiB") == count * 1024


@SEEDED
@given(st.floats(0.001, 9_999_000))
def test_a_formatted_latency_keeps_its_value_and_has_no_exponent(milliseconds):
    text = units.format_ms(milliseconds)
    match = re.fullmatch(r"(\d+(?:\.\d+)?) (ns|us|ms|s)", text)
    assert match, text
    sizes = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1000.0}
    assert float(match[1]) * sizes[match[2]] == pytest.approx(milliseconds, rel=0.00501)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 KB"), (1000, "1 KB"), (1234567, "1.23 MB"), (999_499, "999 KB"),
     (999_500, "1 MB"), (2.5e9, "2.5 GB"), (-1500, "-1.5 KB")],
)  # fmt: skip
def test_a_size_is_formatted_with_three_digits(count, text):
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(1023, "1023 B"), (1024, "1 KiB"), (671088640, "640 MiB"), (8 * 2**30, "8 GiB")]
)
def test_memory_is_formatted_in_powers_of_1024(count, text):
    assert units.format_memory(count) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.01234, "12.3 us"), (0.0000005, "0.5 ns"), (1, "1 ms"), (0.9999, "1 ms"), (999.4, "999 ms"), (1000, "1 s"),
     (61234.5, "61.2 s"), (999_500, "1000 s"), (0, "0 ns")],
)  # fmt: skip
def test_a_latency_is_formatted_in_the_largest_fitting_unit(milliseconds, text):
    assert units.format_ms(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1234567, "1.23 M"), (569_000_000, "569 M"), (2e9, "2 G")]
)
def test_a_count_is_formatted_with_its_prefix(count, text):
    assert units.format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.25, "4.2 s"), (59.97, "1 m 0 s"), (125.4, "2 m 5 s"), (3720, "1 h 2 m"), (3599.6, "1 h 0 m")],
)
def test_a_running_time_is_formatted_with_its_two_largest_units(seconds, text):
    assert units.format_seconds(seconds) == text


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("0.1 %", 0.001), (" 150 % ", 1.5), ("0%", 0.0)])
def test_a_percentage_is_parsed_as_a_fraction(text, share):
    assert units.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "2", "0.02", "-2%", "2 percent", "%"])
def test_an_invalid_percentage_is_rejected(text):
    with pytest.raises(ValueError, match="is not a percentage; write a number and %, such as 2%"):
        units.parse_share(text)
