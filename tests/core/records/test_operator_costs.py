"""The costs of single operators, from counts of truncated models, and explanations of slowdowns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.records.emulated_measurement import Counts, PrefixCounts, costs_by_operator
from edgekit.core.records.operator_costs import Operator, OperatorCost, explain_slowdown, operator_count_changes


def counts(instructions, misses=0.0):
    return Counts(instructions, 0, 0, 0, 0, 0, 0, 0, misses)


def latency_ms(counts, path):
    return counts.instructions / 1000 + (counts.l1_misses or 0.0)


def prefixes(*totals):
    names = "abcdefghijklmnopqrstuvwxyz"
    return [
        PrefixCounts(Operator(name.upper(), name), None if total is None else counts(total))
        for name, total in zip(names, totals, strict=False)
    ]


def costs(*totals):
    return [(item.kind, item.name, item.instructions) for item in costs_by_operator(prefixes(*totals), latency_ms)]


def test_the_cost_of_an_operator_is_what_it_adds():
    assert costs(100, 300, 350) == [("A", "a", 100), ("B", "b", 200), ("C", "c", 50)]


def test_operators_that_cost_less_together_have_one_cost():
    assert costs(100, 500, 300) == [("A", "a", 100), ("B + C", "c", 200)]
    assert costs(100, 500, 50, 60) == [("A + B + C", "c", 50), ("D", "d", 10)]


def test_an_operator_after_which_the_model_cannot_be_truncated_is_joined_with_the_next():
    assert costs(None, 300, None, 350) == [("A + B", "b", 300), ("C + D", "d", 50)]


def test_fewer_misses_alone_do_not_join_operators():
    first, second = (
        PrefixCounts(Operator("A", "a"), counts(100, 5.0)),
        PrefixCounts(Operator("B", "b"), counts(300, 4.0)),
    )
    costs = costs_by_operator([first, second], latency_ms)
    assert [(cost.kind, cost.latency_ms) for cost in costs] == [("A", 5.1), ("B", 0.2)]


@given(st.lists(st.one_of(st.none(), st.integers(1, 10**6)), max_size=20), st.integers(1, 10**6))
def test_costs_sum_up_to_the_whole_and_are_never_negative(totals, last):
    costs = costs_by_operator(prefixes(*totals, last), latency_ms)
    assert sum(cost.latency_ms for cost in costs) == pytest.approx(last / 1000)
    assert sum(cost.instructions for cost in costs) == pytest.approx(last)
    assert all(cost.latency_ms >= 0 for cost in costs)
    kinds = [kind for cost in costs for kind in cost.kind.split(" + ")]
    assert kinds == [prefix.operator.kind for prefix in prefixes(*totals, last)]


def cost(kind, name, latency_ms):
    return OperatorCost(kind, name, latency_ms)


def test_the_operators_that_are_slower_are_named_with_both_latencies():
    before = [cost("CONV_2D", "a", 1.0), cost("CONV_2D", "b", 2.0), cost("SOFTMAX", "c", 1.0)]
    now = [cost("CONV_2D", "a", 1.01), cost("CONV_2D", "b", 5.0), cost("SOFTMAX", "c", 0.5)]
    assert explain_slowdown(before, now) == "CONV_2D b 2 ms -> 5 ms"


def test_new_operators_are_named_as_such():
    now = [cost("TRANSPOSE", "t", 0.5), cost("CONV_2D", "a", 1.0)]
    assert explain_slowdown([cost("CONV_2D", "a", 1.0)], now) == "TRANSPOSE t is new (500 us)"


def test_renamed_operators_are_paired_by_kind_in_order():
    before = [cost("CONV_2D", "conv_1", 1.0), cost("CONV_2D", "conv_2", 2.0)]
    now = [cost("CONV_2D", "conv_7", 1.0), cost("CONV_2D", "conv_8", 4.0)]
    assert explain_slowdown(before, now) == "CONV_2D conv_8 2 ms -> 4 ms"


def test_no_operator_is_named_if_none_is_slower():
    assert explain_slowdown([cost("CONV_2D", "a", 1.0)], [cost("CONV_2D", "a", 0.9)]) == ""


def test_different_numbers_of_operators_are_listed_by_kind():
    assert (
        operator_count_changes({"CONV_2D": 2, "PAD": 1}, {"CONV_2D": 2, "TRANSPOSE": 2})
        == "PAD 1 -> 0, TRANSPOSE 0 -> 2"
    )
    assert operator_count_changes({"CONV_2D": 2}, {"CONV_2D": 2}) == ""
