"""What single operators cost, from counts of beginnings of a model; and which of them became dearer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.records.emulated_measurement import Counts, PrefixCounts, costs_by_operator
from edgekit.core.records.operator_costs import Operator, OperatorCost, explain_slowdown, operator_count_changes


def counts(instructions, misses=0.0):
    return Counts(instructions, 0, 0, 0, 0, 0, 0, 0, misses)


def ms(found):
    return found.instructions / 1000 + (found.l1_misses or 0.0)


def prefixes(*totals):
    names = "abcdefghijklmnopqrstuvwxyz"
    return [
        PrefixCounts(Operator(name.upper(), name), None if total is None else counts(total))
        for name, total in zip(names, totals, strict=False)
    ]


def costs(*totals):
    return [(item.kind, item.name, item.instructions) for item in costs_by_operator(prefixes(*totals), ms)]


def test_each_operator_costs_what_it_adds():
    assert costs(100, 300, 350) == [("A", "a", 100), ("B", "b", 200), ("C", "c", 50)]


def test_operators_that_cost_less_together_are_fused():
    assert costs(100, 500, 300) == [("A", "a", 100), ("B + C", "c", 200)]
    assert costs(100, 500, 50, 60) == [("A + B + C", "c", 50), ("D", "d", 10)]


def test_an_operator_behind_which_there_is_no_cut_stands_with_the_next():
    assert costs(None, 300, None, 350) == [("A + B", "b", 300), ("C + D", "d", 50)]


def test_misses_that_another_cut_happens_to_have_less_of_are_no_reason_to_join():
    first, second = (
        PrefixCounts(Operator("A", "a"), counts(100, 5.0)),
        PrefixCounts(Operator("B", "b"), counts(300, 4.0)),
    )
    found = costs_by_operator([first, second], ms)
    assert [(item.kind, item.latency_ms) for item in found] == [("A", 5.1), ("B", 0.2)]


@given(st.lists(st.one_of(st.none(), st.integers(1, 10**6)), max_size=20), st.integers(1, 10**6))
def test_all_together_are_the_whole_and_nothing_costs_less_than_nothing(totals, last):
    found = costs_by_operator(prefixes(*totals, last), ms)
    assert sum(item.latency_ms for item in found) == pytest.approx(last / 1000)
    assert sum(item.instructions for item in found) == pytest.approx(last)
    assert all(item.latency_ms >= 0 for item in found)
    kinds = [kind for item in found for kind in item.kind.split(" + ")]
    assert kinds == [item.operator.kind for item in prefixes(*totals, last)]


def cost(kind, name, latency_ms):
    return OperatorCost(kind, name, latency_ms)


def test_the_operators_that_make_the_difference_are_named_with_both_figures():
    before = [cost("CONV_2D", "a", 1.0), cost("CONV_2D", "b", 2.0), cost("SOFTMAX", "c", 1.0)]
    now = [cost("CONV_2D", "a", 1.01), cost("CONV_2D", "b", 5.0), cost("SOFTMAX", "c", 0.5)]
    assert explain_slowdown(before, now) == "CONV_2D b 2 ms -> 5 ms"


def test_new_operators_are_named_as_such():
    now = [cost("TRANSPOSE", "t", 0.5), cost("CONV_2D", "a", 1.0)]
    assert explain_slowdown([cost("CONV_2D", "a", 1.0)], now) == "TRANSPOSE t is new (500 us)"


def test_operators_of_other_names_are_paired_by_kind_in_order():
    before = [cost("CONV_2D", "conv_1", 1.0), cost("CONV_2D", "conv_2", 2.0)]
    now = [cost("CONV_2D", "conv_7", 1.0), cost("CONV_2D", "conv_8", 4.0)]
    assert explain_slowdown(before, now) == "CONV_2D conv_8 2 ms -> 4 ms"


def test_nothing_is_named_where_nothing_costs_more():
    assert explain_slowdown([cost("CONV_2D", "a", 1.0)], [cost("CONV_2D", "a", 0.9)]) == ""


def test_other_numbers_of_operators_are_told_by_kind():
    assert (
        operator_count_changes({"CONV_2D": 2, "PAD": 1}, {"CONV_2D": 2, "TRANSPOSE": 2})
        == "PAD 1 -> 0, TRANSPOSE 0 -> 2"
    )
    assert operator_count_changes({"CONV_2D": 2}, {"CONV_2D": 2}) == ""
