"""Tests of comparing a bench with an earlier one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from edgekit.core.environment.atomic_files import to_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.emulated_measurement import UNCALIBRATED, Counts, EmulatedLatency
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.stages.gates.baseline import load_baseline, regressions

WALL = Distribution(9, 1, 1, 1, 1, 1, 1, 0)
COUNTS = Counts(1000, 100, 50, 50, 400, 0, 100, 300, 20, 10)
EMULATED = EmulatedLatency("cortex-a72", 4, 4, COUNTS, 10.0, None, None, UNCALIBRATED)
LATENCY = {"host": 1.0, "analytic": 2.0, "emulated": 10.0}
BENCH = Measurement(
    "tiny", "keras", "tflite", "int8", "0" * 64, "pixel-2", "litert", 1000, 900, LATENCY, 1, 1, 3, WALL, WALL, 1, (1,),
    "a host", None, None, 10, 10, emulated=EMULATED,
)  # fmt: skip
PLAIN = replace(BENCH, latency_ms={"host": 1.0}, emulated=None)


def with_instructions(count):
    return replace(BENCH, emulated=replace(EMULATED, counts=replace(COUNTS, instructions=count)))


def broken(baseline, current, allowed=0.02):
    verdicts = regressions([baseline], [current], allowed, "main.json")
    return [verdict.rule for verdict in verdicts if not verdict.passed]


def test_the_same_figures_are_not_a_regression():
    verdicts = regressions([BENCH], [BENCH], 0.0, "main.json")
    rules = {"size_bytes", "latency_ms.analytic", "latency_ms.emulated", "instructions"}
    assert all(verdict.passed for verdict in verdicts)
    assert {verdict.rule for verdict in verdicts} == rules


@pytest.mark.parametrize(("count", "rules"), [(1020, []), (1021, ["instructions"]), (500, [])])
def test_a_figure_may_be_worse_by_as_much_as_is_allowed(count, rules):
    assert broken(BENCH, with_instructions(count)) == rules


def test_a_regression_is_reported_with_both_figures():
    verdicts = regressions([BENCH], [with_instructions(1500)], 0.02, "main.json")
    (sentence,) = [verdict.sentence for verdict in verdicts if not verdict.passed]
    assert sentence == (
        "tiny/keras tflite:int8 on pixel-2: instructions 1.5 k exceeds the limit 1.02 k, set in main.json (1 k and 2 %)"
        "; to see which operators, bench both per operator: edgekit bench --per-op"
    )


def slower(bench, **changes):
    (verdict,) = [
        verdict
        for verdict in regressions([bench], [replace(with_instructions(1500), **changes)], 0.02, "main.json")
        if not verdict.passed
    ]
    return verdict.detail


def test_the_operators_that_became_slower_are_named():
    conv, pool = OperatorCost("CONV_2D", "conv", 6.0, 600), OperatorCost("MAX_POOL_2D", "pool", 4.0, 400)
    before = replace(BENCH, emulated=replace(EMULATED, operators=(conv, pool)))
    now = replace(with_instructions(1500).emulated, operators=(replace(conv, latency_ms=11.0), pool))
    assert slower(before, emulated=now) == "CONV_2D conv 6 ms -> 11 ms"


def test_without_operator_latencies_the_changed_operator_counts_are_named():
    assert slower(replace(BENCH, kinds={"PAD": 1}), kinds={"PAD": 1, "TRANSPOSE": 2}) == "TRANSPOSE 0 -> 2"


def test_a_larger_file_is_not_explained_by_operators():
    verdicts = regressions([replace(BENCH, kinds={"PAD": 1})], [replace(BENCH, size_bytes=2000)], 0.02, "main.json")
    assert [(verdict.rule, verdict.detail) for verdict in verdicts if not verdict.passed] == [("size_bytes", "")]


def test_operators_are_read_back_as_they_were_written(tmp_path):
    operators = (OperatorCost("CONV_2D", "conv", 6.0, 600, 3), OperatorCost("PAD + CONV_2D", "next", 4.0, 400, 2))
    bench = replace(BENCH, kinds={"PAD": 1}, operators=operators, emulated=replace(EMULATED, operators=operators))
    (tmp_path / "bench.json").write_text(to_json(asdict(bench)))
    assert load_baseline(tmp_path / "bench.json") == (bench,)


def test_host_latency_counts_only_without_the_emulated_tier():
    slow = {**LATENCY, "host": 9.0}
    assert broken(BENCH, replace(BENCH, latency_ms=slow)) == []
    assert broken(PLAIN, replace(PLAIN, latency_ms={"host": 9.0})) == ["latency_ms.host"]
    assert broken(PLAIN, replace(BENCH, latency_ms=slow)) == []


def test_a_figure_that_only_the_baseline_has_is_a_failure():
    assert broken(BENCH, PLAIN) == ["instructions", "latency_ms.analytic", "latency_ms.emulated"]


def test_an_artifact_that_the_baseline_does_not_have_is_ignored():
    added = replace(BENCH, precision="float32")
    verdicts = regressions([BENCH], [BENCH, added], 0.02, "main.json")
    assert {verdict.variant for verdict in verdicts} == {"tflite:int8"}


def test_a_baseline_of_other_artifacts_is_an_error():
    with pytest.raises(InputError, match=r"main\.json: this baseline contains none of the benched artifacts"):
        regressions([BENCH], [replace(BENCH, model="other")], 0.02, "main.json")


def test_a_baseline_for_another_number_of_threads_is_an_error():
    with pytest.raises(InputError, match="this baseline was predicted for 4 threads, not 1; measure with 4 threads"):
        regressions([BENCH], [replace(BENCH, emulated=replace(EMULATED, threads=1))], 0.02, "main.json")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda item: item,
        lambda item: {"measurements": [item], "failures": []},
        lambda item: {"artifacts": [{"measurements": [item]}], "schema_version": 1},
    ],
    ids=["bench file", "bench --json", "report"],
)
def test_every_document_with_benches_is_a_baseline(tmp_path, wrapped):
    path = tmp_path / "main.json"
    path.write_text(to_json(wrapped(asdict(BENCH))))
    assert load_baseline(path) == (BENCH,)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"measurements": []}', '{"measurements": [3]}', '{"measurements": [{}]}']
)
def test_an_invalid_baseline_is_reported_in_one_sentence(tmp_path, text):
    path = tmp_path / "main.json"
    path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        load_baseline(path)


def test_a_measurement_from_before_the_emulated_tier_is_read(tmp_path):
    data = json.loads(to_json(asdict(PLAIN)))
    del data["emulated"]
    (tmp_path / "main.json").write_text(json.dumps(data))
    assert load_baseline(tmp_path / "main.json") == (PLAIN,)


def test_runtimes_on_one_device_are_compared_each_with_itself():
    """A slow second runtime neither hides a regression of the first nor looks like one."""
    slow = replace(PLAIN, runtime="tflite-micro", latency_ms={"host": 50.0})
    worse = replace(PLAIN, latency_ms={"host": 2.0})
    assert all(verdict.passed for verdict in regressions([PLAIN, slow], [PLAIN, slow], 0.02, "main.json"))
    verdicts = regressions([PLAIN, slow], [worse, slow], 0.02, "main.json")
    assert [verdict.rule for verdict in verdicts if not verdict.passed] == ["latency_ms.host"]
