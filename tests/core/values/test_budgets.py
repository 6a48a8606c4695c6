"""Budgets, the strictest of several, and verdicts."""

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.environment.atomic_files import to_json
from edgekit.core.values.budgets import COMMAND_LINE, Budget, BudgetTable, Verdict, format_rule, judge, strictest

SEEDED = settings(derandomize=True, max_examples=80)

finite = st.floats(0, 1e9)
rules = st.sampled_from(["size_bytes", "drift", "latency_ms.host"])
budgets = st.lists(
    st.builds(Budget, rules, finite, st.text(max_size=3), st.sampled_from(["*", "tflite:*", "*:int8", "onnx:*"])),
    max_size=12,
)
verdicts = st.builds(
    Verdict,
    st.text(max_size=5),
    st.sampled_from(["keras", "torch"]),
    st.just("tflite:int8"),
    rules,
    st.none() | finite,
    st.none() | finite,
    st.booleans(),
    st.text(max_size=5),
    st.none() | st.text(max_size=5),
    st.text(max_size=5),
)


def verdict_on(limit, figure, rule="size_bytes", device=None):
    budget = Budget(rule, limit, "model.toml")
    return judge(
        budget, figure, model="tiny", kind="keras", variant="tflite:int8", device=device, missing="run the bench"
    )


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [("*", True), ("tflite:*", True), ("*:int8", True), ("tflite:int8", True), ("tflite", False), ("*:INT8", False),
     ("onnx:*", False), ("*:int8x", False)],
)  # fmt: skip
def test_a_budget_covers_the_variants_that_match_its_pattern(pattern, covered):
    assert Budget("drift", 0.1, "here", pattern).covers("tflite:int8") is covered


def test_a_table_yields_one_budget_for_each_limit_that_is_set():
    table = BudgetTable("*:int8", 1000, 2000, 0.0, (("device", 2.0), ("host", 1.0)), 3000)
    assert table.budgets("model.toml") == (
        Budget("size_bytes", 1000, "model.toml", "*:int8"),
        Budget("peak_memory_bytes", 2000, "model.toml", "*:int8"),
        Budget("drift", 0.0, "model.toml", "*:int8"),
        Budget("instructions", 3000, "model.toml", "*:int8"),
        Budget("latency_ms.device", 2.0, "model.toml", "*:int8"),
        Budget("latency_ms.host", 1.0, "model.toml", "*:int8"),
    )


def test_an_empty_table_limits_nothing():
    assert BudgetTable().budgets("model.toml") == ()


@SEEDED
@given(budgets)
def test_the_strictest_budget_of_each_rule_is_the_lowest_that_covers_the_variant(table):
    lowest = strictest(table, "tflite:int8")
    covering = [budget for budget in table if budget.covers("tflite:int8")]
    assert [budget.rule for budget in lowest] == sorted({budget.rule for budget in covering})
    for budget in lowest:
        assert budget.limit == min(each.limit for each in covering if each.rule == budget.rule)
        assert budget in covering


def test_of_equal_limits_the_first_one_is_reported():
    first, second = Budget("drift", 0.1, "model.toml"), Budget("drift", 0.1, "device")
    assert strictest([first, second], "tflite:int8") == (first,)


@pytest.mark.parametrize(("figure", "passed"), [(999, True), (1000, True), (1000.001, False), (math.nan, False)])
def test_a_figure_passes_up_to_its_limit(figure, passed):
    assert verdict_on(1000, figure).passed is passed


def test_a_negative_drift_is_an_improvement_and_passes():
    assert verdict_on(0.0, -0.01, "drift").passed


def test_a_missing_measurement_fails_and_says_what_to_do():
    verdict = verdict_on(1000, None)
    assert not verdict.passed
    assert verdict.sentence == "tiny/keras tflite:int8: size_bytes: run the bench"


def test_the_sentence_of_an_exceeded_limit_has_figure_limit_and_origin():
    expected = "tiny/keras tflite:int8: size_bytes 1.23 MB exceeds the limit 1 MB, set in model.toml"
    assert verdict_on(1_000_000, 1_234_567).sentence == expected


def test_the_sentence_of_a_passed_limit_names_the_device():
    expected = "tiny/keras tflite:int8 on pixel-2: latency_ms.host 500 us is within the limit 50 ms"
    assert verdict_on(50, 0.5, "latency_ms.host", "pixel-2").sentence == f"{expected}, set in model.toml"


def test_a_limit_is_set_on_the_command_line():
    sentence = replace(verdict_on(1_000_000, 1_234_567), origin=COMMAND_LINE).sentence
    assert sentence.endswith("exceeds the limit 1 MB, set on the command line")


@pytest.mark.parametrize(("passed", "text"), [(True, "passed"), (False, "failed")])
def test_a_rule_without_limit_says_passed_or_failed(passed, text):
    verdict = Verdict("tiny", "keras", "tflite:int8", "equivalence", 0.0, None, passed, "model.toml")
    assert verdict.sentence == f"tiny/keras tflite:int8: equivalence: {text}"


@SEEDED
@given(verdicts)
def test_a_verdict_survives_a_json_round_trip(verdict):
    assert Verdict(**json.loads(to_json(asdict(verdict)))) == verdict


@pytest.mark.parametrize(
    ("rule", "value", "text"),
    [("size_bytes", 1500, "1.5 KB"), ("peak_memory_bytes", 10**6, "1 MB"), ("latency_ms.host", 0.25, "250 us"),
     ("drift", 0.0123456, "0.01235"), ("instructions", 2.5e6, "2.5 M")],
)  # fmt: skip
def test_a_value_is_formatted_with_the_unit_of_its_rule(rule, value, text):
    assert format_rule(rule, value) == text
