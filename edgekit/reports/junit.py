"""JUnit XML for CI systems: one test suite per artifact, one test case per rule.

Names and attributes follow the schema of Jenkins's xUnit plugin (junit-10). Timestamps and host names are left out, so
that the same report gives the same bytes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from edgekit.contracts.report import ReportFormat
from edgekit.core.escape import xml_text
from edgekit.core.records.regressions import ChangeReport, MetricChange
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.values.budgets import Verdict
from edgekit.reports._shared.cells import change_cells


def _suite(name: str, cases: int, failures: int) -> ET.Element:
    counts = {"tests": str(cases), "failures": str(failures), "errors": "0", "skipped": "0", "time": "0"}
    return ET.Element("testsuite", {"name": name, **counts})


def _case(suite: ET.Element, classname: str, name: str, failure: tuple[str, str] | None, output: str = "") -> None:
    """Append a test case; `failure` is its type and its sentence."""
    case = ET.SubElement(suite, "testcase", {"classname": classname, "name": name, "time": "0"})
    if failure is not None:
        kind, sentence = failure
        ET.SubElement(case, "failure", {"type": kind, "message": sentence}).text = sentence
    if output:
        ET.SubElement(case, "system-out").text = output


def _verdict_case(verdict: Verdict) -> tuple[str, tuple[str, str] | None, str]:
    """Return name, failure and output of a verdict's test case."""
    name = f"{verdict.rule} on {verdict.device}" if verdict.device else verdict.rule
    return (
        name,
        None if verdict.passed else (verdict.rule, verdict.sentence),
        verdict.sentence if verdict.passed else "",
    )


def _artifact_suite(row: ReportRow) -> ET.Element:
    manifest = row.artifact.manifest
    failures = sum(not verdict.passed for verdict in row.verdicts)
    suite = _suite(row.artifact.label, len(row.verdicts), failures)
    properties = ET.SubElement(suite, "properties")
    for name, value in (("sha256", manifest.sha256), ("size_bytes", str(manifest.size_bytes))):
        ET.SubElement(properties, "property", {"name": name, "value": value})
    classname = f"{manifest.model}.{manifest.source['kind']}.{manifest.variant.slug}"
    for verdict in row.verdicts:
        _case(suite, classname, *_verdict_case(verdict))
    return suite


def _changes_suite(changes: ChangeReport) -> ET.Element:
    suite = _suite(f"{changes.old} against {changes.new}", len(changes.items), len(changes.broken))
    for change in changes.items:
        figure = change.metric or change.rule
        name = f"{figure} on {change.device}" if change.device else figure
        classname = f"{change.model}.{change.kind}.{change.variant.replace(':', '-')}"
        sentence = _change_sentence(change)
        failure, output = (("regression", sentence), "") if change.broken else (None, sentence)
        _case(suite, classname, name, failure, output)
    return suite


def _change_sentence(change: MetricChange) -> str:
    *_, before, after, difference, word, note = change_cells(change)
    return f"{before} -> {after} ({difference}): {word}" + (f"; {note}" if note else "")


def _document(suites: Sequence[ET.Element]) -> str:
    totals = {name: str(sum(int(suite.get(name, "0")) for suite in suites)) for name in ("tests", "failures", "errors")}
    root = ET.Element("testsuites", {"name": "edgekit", **totals, "time": "0"})
    root.extend(suites)
    for element in root.iter():
        element.attrib = {key: xml_text(value) for key, value in element.attrib.items()}
        element.text = xml_text(element.text) if element.text else None
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


class JunitReport(ReportFormat):
    """JUnit XML for CI systems that show test results."""

    name = "junit"
    suffix = ".xml"

    def render(self, report: Report, *, color: bool = False) -> str:
        suites = [_artifact_suite(row) for row in report.rows]
        return _document(suites if report.changes is None else [*suites, _changes_suite(report.changes)])

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        return _document([_changes_suite(changes)])


REPORT = JunitReport()
