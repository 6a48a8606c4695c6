"""Every report format on the same report: an artifact that passes, one that fails, and one without verdicts."""

import json
import math
import re
from dataclasses import replace

import pytest
from _helpers.sample_reports import (
    EMULATED,
    HOST,
    VERSIONS,
    by_layer,
    comparison,
    measurement,
    mixed_report,
    on_core,
    render,
    report,
    row,
    validation,
    verdict,
)

from edgekit.core.environment import plugin_registry
from edgekit.core.numerics.output_comparison import Comparison
from edgekit.core.records.emulated_measurement import UNCALIBRATED
from edgekit.core.records.report import REPORT_SCHEMA, load_report

ALL = plugin_registry.names("edgekit.reports")


@pytest.fixture
def mixed():
    return mixed_report()


@pytest.mark.parametrize("name", ["console", "markdown"])
@pytest.mark.parametrize(
    ("changes", "interval", "note"),
    [({}, "3 ms .. 3.4 ms", "4 timings"),
     ({"low_ms": None, "high_ms": None, "calibration": UNCALIBRATED}, "uncalibrated", "uncalibrated")],
)  # fmt: skip
def test_the_emulated_tier_has_a_table_of_its_own(name, changes, interval, note):
    emulated = replace(EMULATED, **changes)
    bench = measurement(emulated=emulated, latency_ms={"host": 1.2, "emulated": 3.21})
    text = render(name, report(row(measurements=[bench, measurement("pixel-3a")])))
    (line,) = [line for line in text.splitlines() if "3.21 ms" in line]
    for cell in (interval, "2.5 M", "12.3 k", "7.5 MB"):
        assert cell in line
    assert f"emulated: counted on one thread of QEMU's cortex-a72, predicted for 4; {note}" in text
    assert text.count("instructions") == 1


@pytest.mark.parametrize("name", ["console", "markdown", "github-summary"])
def test_validations_on_emulated_cores_have_a_table_of_their_own(name):
    rows = row(emulated=[on_core()]), row("onnx:int8", emulated=[on_core("pixel-2", equal=False)]), row("onnx:int4")
    lines = render(name, report(*rows)).splitlines()
    (equal,) = [line for line in lines if "raspberry-pi-4b" in line]
    (unequal,) = [line for line in lines if "pixel-2" in line]
    assert re.split(r"[ |]+", equal.strip(" |"))[-4:] == ["raspberry-pi-4b", "1.0e-02", "0.0e+00", "equal"]
    assert re.split(r"[ |]+", unequal.strip(" |"))[-4:] == ["1.0e-02", "7.5e-01", "NOT", "EQUAL"]
    assert "emulated cores" not in render(name, report(row()))


@pytest.mark.parametrize("name", ["console", "markdown", "github-summary", "html"])
def test_versions_of_a_runtime_have_a_table_of_their_own(name):
    text = render(name, report(row(runtime_versions=[VERSIONS]), row("onnx:int8")))
    for version, instructions in (("ai-edge-litert==2.2.0", "2,500,000"), ("ai-edge-litert==2.3.0", "2,600,000")):
        assert text.count(version) == 1
        assert instructions in text
    assert text.count("+4.00 %") == 1
    assert "ai-edge-litert" not in render(name, report(row()))


def test_versions_of_a_runtime_are_in_the_json_and_come_back(tmp_path):
    made = report(row(runtime_versions=[VERSIONS]))
    (tmp_path / "report.json").write_text(render("json", made))
    assert load_report(tmp_path / "report.json").rows[0].runtime_versions == (VERSIONS,)


def test_validations_on_emulated_cores_are_in_the_json_and_come_back(tmp_path):
    made = report(row(emulated=[on_core(), on_core("pixel-2", equal=False)]))
    data = json.loads(render("json", made))["artifacts"][0]["emulated_validations"]
    assert [(item["device"], item["passed"]) for item in data] == [("raspberry-pi-4b", True), ("pixel-2", False)]
    (tmp_path / "report.json").write_text(render("json", made))
    assert load_report(tmp_path / "report.json").rows[0].emulated == made.rows[0].emulated


def test_markdown_summarizes_the_error_by_layer():
    rows = row(layers=by_layer()), row("onnx:int8", layers=by_layer("onnx:int8", diverges=False)), row("onnx:int4")
    tables = markdown_tables(render("markdown", report(*rows)))
    (found,) = [table for table in tables if "lowest SQNR" in "".join(table[0])]
    assert [[cell.strip() for cell in line[1:]] for line in found[2:]] == [
        ["tflite:int8", "source", "29.0 dB at dense", "4 layers", "dense"],
        ["onnx:int8", "source", "43.2 dB at probabilities", "4 layers", "-"],
    ]
    assert "Error by layer" not in render("markdown", report(row()))


def test_the_names_of_stress_inputs_are_in_the_json_and_come_back(tmp_path):
    made = report(row(checked=replace(validation(), stress=(comparison(),), stress_cases=("a", "b", "c", "zeros"))))
    (tmp_path / "report.json").write_text(render("json", made))
    assert load_report(tmp_path / "report.json").rows[0].validation == made.rows[0].validation


def test_error_by_layer_is_in_the_json_and_comes_back(tmp_path):
    made = report(row(layers=by_layer()), row("onnx:int8"))
    (tmp_path / "report.json").write_text(render("json", made))
    assert [item.layers for item in load_report(tmp_path / "report.json").rows] == [by_layer(), None]


def test_an_older_report_without_validations_on_emulated_cores_is_read(tmp_path):
    data = json.loads(render("json", report(row())))
    del data["artifacts"][0]["emulated_validations"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert load_report(tmp_path / "report.json").rows[0].emulated == ()


def cells_of(text, variant):
    """The rest of the first table line about the variant, with single spaces."""
    lines = (line.split() for line in text.splitlines())
    return " ".join(next(words[2:] for words in lines if words[:2] == ["tiny/keras", variant]))


def markdown_tables(text):
    """Each table as the cells of its lines; an escaped bar is no border."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()] for block in blocks]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [(), (row(),), (row(checked=validation()),)], ids=["none", "bare", "no outputs"])
def test_an_empty_or_sparse_report_renders(name, rows):
    assert render(name, report(*rows)).endswith("\n")


@pytest.mark.parametrize("name", ALL)
def test_a_report_knows_its_own_name_and_ends_with_one_line_feed(name, mixed):
    assert plugin_registry.load("edgekit.reports", name, "REPORT").name == name
    text = render(name, mixed)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", [name for name in ALL if name != "csv"])  # csv has figures, no sentences
def test_every_failed_verdict_is_listed_with_its_sentence(name, mixed):
    text = render(name, mixed)
    assert len(mixed.failed) == 2
    assert all(item.sentence in text for item in mixed.failed)


@pytest.mark.parametrize("name", ALL)
def test_the_same_report_gives_the_same_bytes(name, mixed):
    assert render(name, mixed) == render(name, mixed_report())


@pytest.mark.parametrize("name", ALL)
def test_every_format_is_named_in_the_help(name, edgekit):
    assert name in edgekit("report", "--help").out


def test_the_help_lists_the_formats_that_are_installed(edgekit, monkeypatch):
    monkeypatch.setattr(plugin_registry, "names", lambda package: ["console", "slides"])
    assert "console (default), slides." in edgekit("report", "--help").out


@pytest.mark.parametrize("name", ["console", "markdown"])
def test_the_conclusion_counts_rules_and_failures(name, mixed):
    assert "3 rules judged on 3 artifacts: 2 FAILED" in render(name, mixed)
    assert "1 rules judged on 1 artifacts: all pass" in render(name, report(mixed.rows[0]))


def test_a_passing_verdict_is_not_listed_as_failed(mixed):
    passing = report(mixed.rows[0])
    assert "FAILED" not in render("console", passing)
    assert "## Failed" not in render("markdown", passing)


def test_console_cells_show_figures_in_their_units(mixed):
    cells = cells_of(render("console", mixed), "tflite:int8")
    assert cells == "1.23 MB 1.0e-02 31 dB 98.7% 96.98% +0.14 pass"


def test_a_regression_is_shown_in_its_own_unit_and_without_agreement():
    text = render("console", report(row(checked=validation(comparison(), metric="mae"))))
    assert cells_of(text, "tflite:int8").endswith(" dB - 0.9698 +0.0014 pass")


def test_what_was_not_measured_is_a_dash(mixed):
    assert cells_of(render("console", mixed), "torchscript:float32") == "1.23 MB - - - - - pass"


def test_equal_outputs_are_shown_as_exact(mixed):
    assert cells_of(render("console", mixed), "onnx:int8") == "1.23 MB 1.0e-02 exact 98.7% 96.98% +0.14 FAIL"


@pytest.mark.parametrize("order", [1, -1])
def test_an_output_that_could_not_be_compared_is_never_shown_as_exact(order):
    broken = Comparison("z", 64, None, (), "the artifact has no such output")
    outputs = (comparison(sqnr=None), broken)[::order]
    assert "exact" not in render("console", report(row(checked=validation(*outputs))))


def test_the_worst_output_is_shown():
    outputs = (comparison(sqnr=31.0, error=0.01), comparison("z", sqnr=12.0, error=0.5))
    cells = cells_of(render("console", report(row(checked=validation(*outputs)))), "tflite:int8")
    assert cells.startswith("1.23 MB 5.0e-01 12 dB ")


def test_each_device_has_a_table_and_tiers_are_explained(mixed):
    text = render("console", mixed)
    assert text.index("\npixel-2\n") < text.index("\nraspberry-pi-4b\n")
    assert text.count(" 12.5 us") == 2
    assert f"host: measured on {HOST}\nanalytic: " in text


def test_a_bench_without_bound_or_memory_has_dashes():
    item = measurement(latency_ms={"host": 1.2}, peak_memory_load_bytes=None, peak_memory_run_bytes=None)
    text = render("console", report(row(measurements=[item])))
    bench = text[text.index("pixel-2") :]
    assert cells_of(bench, "tflite:int8") == "1.2 ms 8.84 ms - 12.5 ms -"


@pytest.mark.parametrize("model", ["tiny", "a_model_with_a_name_that_is_much_too_long_for_any_column_of_a_table" * 2])
def test_console_tables_fit_100_columns(model, mixed):
    checked = validation(comparison(error=123456.0), comparison(sqnr=-999.0))
    benches = [measurement(model=model, target="lite-interpreter", precision="float32", load_ms=123456.7)]
    rows = [replace(item, verdicts=()) for item in mixed.rows]
    made = report(*rows, row("lite-interpreter:float32", model, checked, benches))
    lines = [line for line in render("console", made).splitlines() if not line.startswith("host: ")]
    assert max(map(len, lines)) <= 100


def test_console_sentences_fit_100_columns(mixed):
    sentences = [line for line in render("console", mixed).splitlines() if line.startswith(("host: ", "FAILED "))]
    assert [line for line in sentences if len(line) > 100] == []


@pytest.fixture
def color_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")


def test_color_is_for_terminals_that_ask_for_it(mixed, color_terminal):
    assert "\x1b[" not in render("console", mixed)
    assert "\x1b[" in render("console", mixed, color=True)
    assert "\x1b[" not in render("markdown", mixed, color=True) + render("json", mixed, color=True)


def test_color_changes_no_word(mixed, color_terminal):
    plain = re.sub(r"\x1b\[[0-9;]*m", "", render("console", mixed, color=True))
    assert plain.split() == render("console", mixed).split()


def test_markup_in_a_name_is_printed_as_it_is():
    text = render("console", report(row(model="[red]x[/red]")))
    assert "[red]x[/red]/keras" in text


def test_json_is_one_document_with_a_schema_version(mixed):
    data = json.loads(render("json", mixed))
    assert data["schema_version"] == REPORT_SCHEMA
    assert (data["edgekit"], data["host"], data["passed"]) == ("0.1.0", HOST, False)
    assert [item["variant"] for item in data["artifacts"]] == ["tflite:int8", "onnx:int8", "torchscript:float32"]
    assert [item["passed"] for item in data["artifacts"]] == [True, False, True]
    assert [item["name"] for item in data["sources"]] == ["tiny"]


def test_json_holds_the_results_of_all_stages(mixed):
    first, _, bare = json.loads(render("json", mixed))["artifacts"]
    assert first["manifest"]["size_bytes"] == 1_234_567
    assert first["validation"]["passed"] is True
    assert [item["device"] for item in first["measurements"]] == ["raspberry-pi-4b", "pixel-2"]
    assert first["verdicts"][0]["rule"] == "size_bytes"
    assert (bare["validation"], bare["measurements"], bare["verdicts"]) == (None, [], [])


def test_json_has_no_nan_and_no_infinity(mixed):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(render("json", mixed), parse_constant=refuse)
    with pytest.raises(ValueError):
        render("json", report(row(verdicts=[verdict(False, figure=math.nan)])))


def test_json_says_passed_when_nothing_failed(mixed):
    assert json.loads(render("json", report(mixed.rows[0])))["passed"] is True


def test_markdown_tables_have_as_many_cells_in_every_line(mixed):
    piped = row(model="a|b", measurements=[measurement(model="a|b")])
    tables = markdown_tables(render("markdown", report(*mixed.rows, piped)))
    assert [len(table) for table in tables] == [2 + 4, 2 + 2, 2 + 1]
    for table in tables:
        assert len({len(cells) for cells in table}) == 1
        assert all(re.fullmatch(r" -+:? ", cell) for cell in table[1])


def test_markdown_tables_stand_alone_between_blank_lines(mixed):
    text = render("markdown", mixed)
    assert re.search(r"[^|\n]\n\|", text) is None
    assert re.search(r"\|\n[^|\n]", text) is None
