"""Tests of comparing two runs: what counts as worse, what cannot be compared, and the verdict of a gate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from _helpers.sample_reports import EMULATED, comparison, measurement, render, report, row, validation, verdict

from edgekit.core.errors import InputError
from edgekit.core.records.regressions import (
    ALLOWED,
    BETTER,
    INCOMPARABLE,
    NEW,
    REMOVED,
    SAME,
    WORSE,
    RegressionThresholds,
)
from edgekit.core.records.report import load_report
from edgekit.stages.gates.regressions import compare_reports, compare_with_baseline
from edgekit.stages.selection import Selection

NAMES = ("main.json", "branch.json")
LATENCY = {"host": 1.2, "analytic": 0.0125, "emulated": 3.21}
BENCH = measurement(emulated=EMULATED, latency_ms=LATENCY)


def run(bench=BENCH, size=1_234_567, accuracy=0.9698, samples=1000, verdicts=()):
    checked = validation(comparison())
    checked = replace(checked, drift=replace(checked.drift, artifact=accuracy, samples=samples))
    entry = row(checked=checked, measurements=() if bench is None else (bench,), verdicts=verdicts)
    manifest = entry.artifact.manifest
    files = (replace(manifest.files[0], size=size), *manifest.files[1:])
    manifest = replace(manifest, size_bytes=size, files=files)
    return report(replace(entry, artifact=replace(entry.artifact, manifest=manifest)))


def latency(**figures):
    return replace(BENCH, latency_ms={**LATENCY, **figures})


def instructions(count):
    return replace(BENCH, emulated=replace(EMULATED, counts=replace(EMULATED.counts, instructions=count)))


def states(old, new, thresholds=None):
    """Return the state by rule of each reported change."""
    changes = compare_reports(old, new, NAMES, thresholds or RegressionThresholds())
    return {change.rule: change.state for change in changes.reported}


def test_the_same_run_twice_has_no_changes():
    changes = compare_reports(run(), run(), NAMES, RegressionThresholds(0, 0, 0))
    assert {change.state for change in changes.items} == {SAME}
    assert {change.rule for change in changes.items} == {
        "size_bytes",
        "metric",
        "instructions",
        "latency_ms.analytic",
        "latency_ms.emulated",
        "latency_ms.host",
        "peak_memory_bytes",
    }
    assert changes.sentence == "7 figures compared: nothing changed"


@pytest.mark.parametrize(
    ("new", "rule", "state"),
    [
        (run(size=1_234_568), "size_bytes", ALLOWED),
        (run(size=1_300_000), "size_bytes", WORSE),
        (run(size=1_234_566), "size_bytes", BETTER),
        (run(accuracy=0.9688), "metric", ALLOWED),
        (run(accuracy=0.95), "metric", WORSE),
        (run(accuracy=0.98), "metric", BETTER),
        (run(latency(analytic=0.013)), "latency_ms.analytic", WORSE),
        (run(latency(emulated=3.22)), "latency_ms.emulated", ALLOWED),
        (run(latency(emulated=3.3)), "latency_ms.emulated", WORSE),
        (run(latency(host=1.5)), "latency_ms.host", WORSE),
        (run(latency(host=0.9)), "latency_ms.host", BETTER),
        (run(instructions(2.6e6)), "instructions", WORSE),
        (run(replace(BENCH, peak_memory_load_bytes=7_000_000)), "peak_memory_bytes", WORSE),
    ],
)
def test_a_change_is_reported_by_its_rule(new, rule, state):
    assert states(run(), new) == {rule: state}


@pytest.mark.parametrize(
    "bench", [latency(host=1.4), latency(host=1.0), instructions(2.501e6), latency(emulated=3.212)]
)
def test_a_difference_within_the_noise_is_not_a_change(bench):
    assert states(run(), run(bench)) == {}


def test_the_thresholds_can_be_set():
    assert states(run(), run(size=1_300_000), RegressionThresholds(share=0.1)) == {"size_bytes": ALLOWED}
    assert states(run(), run(latency(host=1.4)), RegressionThresholds(noisy=0.1)) == {"latency_ms.host": WORSE}
    assert states(run(), run(accuracy=0.9688), RegressionThresholds(metric=0.0005)) == {"metric": WORSE}


def test_an_error_that_grows_is_a_loss_where_less_is_better():
    def with_mae(value):
        base = run(bench=None)
        (entry,) = base.rows
        drift = replace(entry.validation.drift, metric="mae", artifact=value)
        return replace(base, rows=(replace(entry, validation=replace(entry.validation, drift=drift)),))

    assert states(with_mae(0.08), with_mae(0.1)) == {"metric": WORSE}
    assert states(with_mae(0.1), with_mae(0.08)) == {"metric": BETTER}


@pytest.mark.parametrize(
    ("new", "rules", "note"),
    [
        (run(replace(BENCH, host="a laptop")), {"latency_ms.host", "peak_memory_bytes"}, "on a laptop now"),
        (run(replace(BENCH, threads=2)), {"latency_ms.host", "peak_memory_bytes"}, "with 1 threads before, with 2 now"),
        (
            run(replace(BENCH, emulated=replace(EMULATED, cpu="cortex-a76"))),
            {"latency_ms.emulated", "instructions"},
            "counted on cortex-a72 before, on cortex-a76 now",
        ),
        (
            run(replace(BENCH, emulated=replace(EMULATED, threads=2))),
            {"latency_ms.emulated"},
            "predicted for 4 threads before, for 2 now",
        ),
        (
            run(replace(BENCH, emulated=replace(EMULATED, calibration="5 timings"))),
            {"latency_ms.emulated"},
            "predicted by another cost model: 4 timings before, 5 timings now",
        ),
        (run(samples=200), {"metric"}, "measured on 1000 test samples before, on 200 now"),
    ],
)
def test_values_from_different_conditions_are_not_compared(new, rules, note):
    changes = compare_reports(run(), new, NAMES, RegressionThresholds()).reported
    assert {change.rule for change in changes} == rules
    assert {change.state for change in changes} == {INCOMPARABLE}
    assert all(change.note.endswith(note) for change in changes)
    assert not any(change.broken for change in changes)


def test_a_tier_is_never_compared_with_another():
    plain = replace(BENCH, latency_ms={"host": 3.21}, emulated=None)
    assert states(run(), run(plain))["latency_ms.emulated"] == REMOVED
    assert states(run(plain), run())["latency_ms.emulated"] == NEW


def test_added_and_removed_artifacts_and_benches_are_reported():
    old, new = report(row(), row("onnx:int8")), report(row(), row("onnx:float32"))
    changes = compare_reports(old, new, NAMES, RegressionThresholds())
    assert [(change.variant, change.rule, change.state) for change in changes.reported] == [
        ("onnx:int8", "artifact", REMOVED),
        ("onnx:float32", "artifact", NEW),
    ]
    assert [change.state for change in changes.broken] == [REMOVED]
    assert states(run(), run(bench=None)) == {"bench": REMOVED}


def test_a_changed_verdict_is_reported():
    good, bad = run(verdicts=[verdict(True)]), run(verdicts=[verdict(False)])
    assert states(good, bad) == {"verdict:size_bytes": WORSE}
    assert states(bad, good) == {"verdict:size_bytes": BETTER}
    assert states(run(), bad) == {}


def test_the_worst_change_comes_first():
    new = run(latency(emulated=3.0, host=9.0), size=1_240_000)
    changes = compare_reports(run(), new, NAMES, RegressionThresholds())
    assert [change.state for change in changes.reported] == [WORSE, ALLOWED, BETTER]
    assert changes.sentence == "7 figures compared: 1 worse, 1 allowed, 1 better"


def test_runs_with_nothing_in_common_are_bad_input():
    with pytest.raises(InputError, match=r"main\.json and branch\.json have no artifact in common"):
        compare_reports(report(row()), report(row("onnx:int8")), NAMES, RegressionThresholds())


def test_artifacts_outside_the_selection_are_not_reported_as_removed():
    old = report(row(), row("onnx:int8"), row(model="other"))
    now = report(row())
    assert len(compare_with_baseline(now, old, "main.json", Selection()).changes.broken) == 2
    assert len(compare_with_baseline(now, old, "main.json", Selection(names=("tiny",))).changes.broken) == 1
    assert len(compare_with_baseline(now, old, "main.json", Selection(targets=("tflite",))).changes.broken) == 1
    assert compare_with_baseline(now, old, "main.json", Selection(("tiny",), targets=("tflite",))).changes.broken == ()


def test_a_comparison_can_be_limited_to_one_device():
    old = run(latency(host=0.1))
    changed = compare_with_baseline(run(), old, "main.json", Selection(), devices=("pixel-3a",)).changes
    assert changed.broken == ()
    assert compare_with_baseline(run(), old, "main.json", Selection(), devices=("pixel-2",)).changes.broken


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    written = run(verdicts=[verdict(False)])
    path = tmp_path / "report.json"
    path.write_text(render("json", written))
    assert load_report(path) == replace(written, sources=())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "artifacts": [3]}', '{"artifacts": []}']
)
def test_an_invalid_report_is_reported_in_one_sentence(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        load_report(path)


@pytest.fixture
def two(tmp_path):
    """The files of two runs; the second is smaller, slower and less accurate."""
    paths = []
    for name, content in (("old", run()), ("new", run(latency(emulated=4.0), size=1_000_000, accuracy=0.9))):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(render("json", content))
    return paths


@pytest.mark.parametrize("name", ["console", "markdown", "html", "github-summary", "github-annotations", "junit"])
def test_two_files_are_compared_in_one_table(edgekit, two, name):
    answer = edgekit("report", "--compare", *two, "--format", name)
    assert answer.code == 0
    for word in ("slower", "less accurate"):
        assert word in answer.out
    assert ("smaller" in answer.out) == (name != "github-annotations")  # errors only


def test_two_files_are_compared_as_json(edgekit, two):
    data = edgekit("report", "--compare", *two, "--json").data
    assert data["passed"] is False
    changes = {item["rule"]: item for item in data["changes"]}
    assert changes["size_bytes"]["relative"] == pytest.approx(1_000_000 / 1_234_567 - 1)
    assert changes["metric"]["state"] == "worse"


def test_a_console_table_of_changes_fits_100_columns(edgekit, two):
    assert max(map(len, edgekit("report", "--compare", *two).out.splitlines()[1:])) <= 100


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tiny", "--compare", "old.json", "new.json"), "--compare reads two files and cannot be combined with"),
        (("--compare", "old.json", "no.json"), "no.json: no such report"),
        (
            ("--compare", "old.json", "new.json", "--format", "csv"),
            "the format csv cannot show the changes between two reports; use another --format",
        ),
        (("--baseline", "no.json"), "no.json: no such report"),
    ],
)
def test_a_comparison_that_is_impossible_is_bad_input(edgekit, two, monkeypatch, arguments, sentence):
    monkeypatch.chdir(two[0].parent)
    answer = edgekit("report", *arguments)
    assert answer.code == 2
    assert sentence in answer.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--max-regression", "2%"), "--max-regression needs a --baseline"),
        (("--max-metric-loss", "0.1"), "--max-metric-loss needs a --baseline"),
        (("--baseline", "x.json", "--max-host-regression", "2"), "--max-host-regression: '2' is not a percentage"),
        (("--baseline", "x.json", "--max-metric-loss", "0", "--max-regression", "q"), "--max-regression: 'q' is not"),
    ],
)
def test_thresholds_are_validated_before_anything_is_run(edgekit, tmp_path, arguments, sentence):
    answer = edgekit("check", "--root", tmp_path, *arguments)
    assert answer.code == 2
    assert sentence in answer.err


def test_a_baseline_gates_a_change(edgekit, project, tmp_path):
    before = tmp_path / "before.json"
    selection = ("linear", "--framework", "keras", "--target", "onnx")
    assert edgekit("report", *selection, "--root", project, "--format", "json", "--output", before).code == 0
    same = edgekit("check", *selection, "--root", project, "--baseline", before, "--json")
    assert (same.code, same.data["changes"]["passed"]) == (0, True)
    data = json.loads(before.read_text())
    data["artifacts"][0]["manifest"]["size_bytes"] -= 100
    data["artifacts"][0]["manifest"]["files"][0]["size"] -= 100
    before.write_text(json.dumps(data))
    worse = edgekit("check", *selection, "--root", project, "--baseline", before)
    assert worse.code == 1
    assert " larger" in worse.out
    lenient = edgekit("check", *selection, "--root", project, "--baseline", before, "--max-regression", "50%")
    assert lenient.code == 0
    assert "larger, allowed" in lenient.out
    page = edgekit("report", *selection, "--root", project, "--baseline", before, "--format", "html")
    assert 'id="changes"' in page.out
