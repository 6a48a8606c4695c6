"""JUnit XML as CI systems read it: a suite an artifact, a test case a rule.

Names and attributes are those of the schema of Jenkins's xUnit plugin (junit-10). There are no times of day and no host
names: the same report gives the same bytes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from edgekit.contracts.report import ReportFormat
from edgekit.core.records.regressions import ChangeReport, MetricChange
from edgekit.core.records.report import Report, ReportRow
from edgekit.core.values.budgets import Verdict
from edgekit.reports._shared.cells import change_cells

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(text: str) -> str:
    """Without what XML 1.0 has no character for."""
    return _NOT_XML.sub("\ufffd", text)


def _suite(name: str, cases: int, failures: int) -> ET.Element:
    counts = {"tests": str(cases), "failures": str(failures), "errors": "0", "skipped": "0", "time": "0"}
    return ET.Element("testsuite", {"name": _text(name), **counts})


def _case(suite: ET.Element, classname: str, name: str, failure: tuple[str, str] | None, output: str = "") -> None:
    """`failure` is its type and its sentence."""
    case = ET.SubElement(suite, "testcase", {"classname": _text(classname), "name": _text(name), "time": "0"})
    if failure is not None:
        kind, sentence = map(_text, failure)
        ET.SubElement(case, "failure", {"type": kind, "message": sentence}).text = sentence
    if output:
        ET.SubElement(case, "system-out").text = _text(output)


def _judged(verdict: Verdict) -> tuple[str, tuple[str, str] | None, str]:
    name = f"{verdict.rule} on {verdict.device}" if verdict.device else verdict.rule
    return (
        name,
        None if verdict.passed else (verdict.rule, verdict.sentence),
        verdict.sentence if verdict.passed else "",
    )


def _artifact(row: ReportRow) -> ET.Element:
    manifest = row.artifact.manifest
    failures = sum(not verdict.passed for verdict in row.verdicts)
    suite = _suite(row.artifact.label, len(row.verdicts), failures)
    properties = ET.SubElement(suite, "properties")
    for name, value in (("sha256", manifest.sha256), ("size_bytes", str(manifest.size_bytes))):
        ET.SubElement(properties, "property", {"name": name, "value": value})
    classname = f"{manifest.model}.{manifest.source['kind']}.{manifest.variant.slug}"
    for verdict in row.verdicts:
        _case(suite, classname, *_judged(verdict))
    return suite


def _changed(changes: ChangeReport) -> ET.Element:
    suite = _suite(f"{changes.old} against {changes.new}", len(changes.items), len(changes.broken))
    for item in changes.items:
        name = f"{item.metric or item.rule} on {item.device}" if item.device else item.metric or item.rule
        classname = f"{item.model}.{item.kind}.{item.variant.replace(':', '-')}"
        sentence = _sentence(item)
        _case(
            suite, classname, name, ("regression", sentence) if item.broken else None, "" if item.broken else sentence
        )
    return suite


def _sentence(item: MetricChange) -> str:
    *_, before, after, by, word, note = change_cells(item)
    return f"{before} -> {after} ({by}): {word}" + (f"; {note}" if note else "")


def _document(suites: Sequence[ET.Element]) -> str:
    totals = {name: str(sum(int(suite.get(name, "0")) for suite in suites)) for name in ("tests", "failures", "errors")}
    root = ET.Element("testsuites", {"name": "edgekit", **totals, "time": "0"})
    root.extend(suites)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


class JunitReport(ReportFormat):
    """For CI systems that show test results."""

    name = "junit"
    suffix = ".xml"

    def render(self, report: Report, *, color: bool = False) -> str:
        suites = [_artifact(row) for row in report.rows]
        return _document(suites if report.changes is None else [*suites, _changed(report.changes)])

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        return _document([_changed(changes)])


REPORT = JunitReport()
