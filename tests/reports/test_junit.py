"""JUnit XML, validated against the schema of Jenkins's xUnit plugin."""

from dataclasses import replace

import pytest
from _helpers.sample_reports import mixed_report, render, report, row, verdict
from _helpers.support import REPOSITORY
from lxml import etree

SCHEMA = etree.XMLSchema(etree.parse(REPOSITORY / "tests" / "fixtures" / "junit.xsd"))


def parsed(made):
    document = etree.fromstring(render("junit", made).encode())
    SCHEMA.assertValid(document)
    return document


@pytest.mark.parametrize("made", [report(), report(row()), mixed_report()], ids=["empty", "not judged", "mixed"])
def test_the_document_is_valid(made):
    parsed(made)


def test_each_artifact_is_a_suite_and_each_rule_a_case():
    document = parsed(mixed_report())
    assert [suite.get("name") for suite in document] == [
        "tiny/keras tflite:int8",
        "tiny/keras onnx:int8",
        "tiny/keras torchscript:float32",
    ]
    assert [(suite.get("tests"), suite.get("failures")) for suite in document] == [("1", "0"), ("2", "2"), ("0", "0")]
    assert (document.get("tests"), document.get("failures")) == ("3", "2")
    assert [case.get("name") for case in document.iter("testcase")] == ["size_bytes", "size_bytes", "drift"]
    assert {case.get("classname") for case in document[1].iter("testcase")} == {"tiny.keras.onnx-int8"}


def test_a_failure_has_the_rule_and_the_sentence():
    made = mixed_report()
    found = [(item.get("type"), item.get("message")) for item in parsed(made).iter("failure")]
    assert found == [(item.rule, item.sentence) for item in made.failed]


def test_a_case_on_a_device_says_so():
    made = report(row(verdicts=[verdict(True, "peak_memory_bytes", device="pixel-2")]))
    assert [case.get("name") for case in parsed(made).iter("testcase")] == ["peak_memory_bytes on pixel-2"]


def test_characters_that_xml_cannot_represent_are_shown():
    broken = replace(verdict(False, figure=None), detail="it wrote \x00 \x1b[31m <&> \ud800")
    (failure,) = parsed(report(row(verdicts=[broken]))).iter("failure")
    assert failure.get("message").endswith("it wrote \\x00 \\x1b[31m <&> \\ud800")
