"""The order of inputs and outputs in a file."""

import pytest

from edgekit.core.values.tensor_order import names_by_position, numbers_by_name


@pytest.mark.parametrize(
    ("entries", "positions", "names", "numbers"),
    [
        ([("a", 5), ("b", 6)], [6, 5], ["b", "a"], {"a": 1, "b": 0}),
        ([("a", 5), ("again", 5)], [5, 5], ["a", "again"], {"a": 0, "again": 1}),
        ([("a", 5), ("again", 5), ("b", 6)], [6, 5], ["b", "a"], {"a": 1, "again": 1, "b": 0}),
        ([("a", 5)], [4, 5], [None, "a"], {"a": 1}),
        ([("a", 5), ("gone", 9)], [5], ["a"], {"a": 0}),
        ([], [3, 4], [None, None], {}),
        ([], [], [], {}),
    ],
)
def test_names_and_numbers(entries, positions, names, numbers):
    assert names_by_position(entries, positions) == names
    assert numbers_by_name(entries, positions) == numbers
