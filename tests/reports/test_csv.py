"""CSV with one line per figure, read back by the csv module."""

import csv
import io
from dataclasses import replace

from _helpers.sample_reports import (
    EMULATED,
    comparison,
    measurement,
    mixed_report,
    on_core,
    render,
    report,
    row,
    validation,
)


def lines(document):
    return list(csv.DictReader(io.StringIO(render("csv", document))))


def figure(found, name, **where):
    return [
        item for item in found if item["figure"] == name and all(item[key] == value for key, value in where.items())
    ]


def test_every_line_has_every_column():
    found = lines(mixed_report())
    assert all(None not in item and None not in item.values() for item in found)
    assert {item["sha256"] for item in found} == {"0" * 64}


def test_figures_are_not_rounded():
    (size,) = figure(lines(report(row())), "size_bytes")
    assert (size["value"], size["model"], size["kind"], size["target"]) == ("1234567", "tiny", "keras", "tflite")


def test_a_tuned_artifact_is_distinguished_from_the_untuned_one():
    found = lines(report(row("tflite:int8"), row("tflite:int8-tuned")))
    assert [(item["precision"], item["variant"]) for item in figure(found, "size_bytes")] == [
        ("int8", "tflite:int8"),
        ("int8", "tflite:int8-tuned"),
    ]


def test_a_latency_has_its_tier():
    bench = measurement(emulated=EMULATED, latency_ms={"host": 1.2, "analytic": 0.0125, "emulated": 3.21})
    found = lines(report(row(measurements=[bench])))
    latencies = {(item["device"], item["tier"]): float(item["value"]) for item in figure(found, "latency_ms")}
    assert latencies == {("pixel-2", "analytic"): 0.0125, ("pixel-2", "emulated"): 3.21, ("pixel-2", "host"): 1.2}
    assert figure(found, "instructions", tier="emulated")[0]["value"] == "2500000.0"
    assert [line["value"] for line in figure(found, "peak_memory_bytes", tier="emulated")] == ["7500000"]
    assert len(figure(found, "peak_memory_bytes", tier="host")) == 1
    assert all(item["tier"] for item in found if item["device"])


def test_a_figure_has_its_limit():
    found = lines(report(row(checked=validation(comparison()))))
    (noise,) = figure(found, "sqnr_db")
    assert (noise["value"], noise["limit"], noise["passed"], noise["output"]) == ("31.4", "20.0", "True", "y")
    (error,) = figure(found, "max_abs_error")
    assert (error["limit"], error["passed"]) == ("", "")


def test_equal_outputs_have_an_infinite_sqnr():
    found = lines(report(row(checked=validation(comparison(sqnr=None)))))
    assert figure(found, "sqnr_db")[0]["value"] == "inf"


def test_a_validation_on_an_emulated_core_has_its_device():
    found = lines(report(row(emulated=[on_core(), on_core("pixel-2", equal=False)])))
    equal = figure(found, "equal", tier="emulated")
    assert [(item["device"], item["value"], item["passed"]) for item in equal] == [
        ("raspberry-pi-4b", "1", "True"),
        ("pixel-2", "0", "False"),
    ]
    (noise,) = figure(found, "sqnr_db", device="pixel-2")
    assert (noise["value"], noise["passed"]) == ("31.4", "True")
    (error,) = figure(found, "to_host_max_abs_error", device="pixel-2")
    assert (error["value"], error["limit"], error["passed"]) == ("0.75", "0.1", "False")


def test_a_failed_rule_has_a_line():
    rules = figure(lines(mixed_report()), "rule_size_bytes")
    assert [(item["value"], item["limit"], item["passed"]) for item in rules] == [
        ("1234567.0", "2000000.0", "True"),
        ("1234567.0", "400000.0", "False"),
    ]


def test_stress_inputs_have_figures_of_their_own():
    checked = replace(validation(comparison()), stress=(comparison(sqnr=21.5),), stress_cases=("zeros",) * 4)
    found = lines(report(row(checked=checked)))
    assert [item["value"] for item in figure(found, "stress_sqnr_db")] == ["21.5"]
