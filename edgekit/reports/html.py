"""One self-contained HTML page: it loads nothing, has a table for every chart, and can be printed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgekit.contracts.report import ReportFormat
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.escape import visible
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.core.values.tiers import TIERS
from edgekit.reports._html.svg import MARKER_DEFINITIONS
from edgekit.reports._shared.cells import NOTHING, conclusion, synthetic_note

JINJA2 = Requirement("jinja2", "jinja2", "report")

_PAGE = Path(__file__).parent / "_html" / "page"


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _escaped(value: Any) -> Any:
    """Return text in visible characters; Jinja escapes its markup afterwards. `Markup`, which is ours, stays."""
    # Nearly all of the page's 100,000 texts are plain: the first test saves a tenth of its time.
    if type(value) is not str or (value.isascii() and value.isprintable() and "#" not in value):
        return value
    return visible(value)


def _page(**parts: Any) -> str:
    require((JINJA2,), "the format html")
    script = _page_file("page.js")
    style = _page_file("page.css") + _alignment(parts.values())
    text: str = _template().render(
        nothing=NOTHING,
        markers=MARKER_DEFINITIONS,
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        **parts,
    )
    return text.strip("\n") + "\n"


@cache
def _page_file(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _csp_hash(content: str) -> str:
    """Return the hash by which a content security policy allows an inline element (CSP 3, section 2.3.1)."""
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"


def _alignment(parts: Iterable[Any]) -> str:
    """Return a CSS rule for each numeric column; the class `n3` of a table marks its third column."""
    from edgekit.reports._html.tables import Table

    tables = [table for part in parts for table in (part if isinstance(part, tuple) else (part,))]
    tables = [getattr(table, "table", table) for table in tables]
    columns = {
        index
        for table in tables
        if isinstance(table, Table)
        for index, column in enumerate(table.columns, 1)
        if column.numeric
    }
    return "".join(f".n{index} :is(td,th):nth-child({index}){{text-align:right}}\n" for index in sorted(columns))


def _facts(report: Report, benches: list[Measurement]) -> list[tuple[str, str]]:
    models = {row.artifact.manifest.model for row in report.rows}
    devices = {bench.device for bench in benches}
    return [
        ("models", str(len(models))),
        ("artifacts", str(len(report.rows))),
        ("rules judged", str(report.verdict_count)),
        ("rules failed", str(len(report.failed))),
        ("devices", str(len(devices))),
    ]


class HtmlReport(ReportFormat):
    """An HTML page with charts, sortable tables and the evidence for each figure."""

    name = "html"
    suffix = ".html"

    def render(self, report: Report, *, color: bool = False) -> str:
        require((JINJA2,), "the format html")
        from edgekit.reports._html import evidence, matrix, panels, tables

        benches = [bench for row in report.rows for bench in row.measurements]
        hosts = list(dict.fromkeys(bench.host for bench in benches))
        return _page(
            title="edgekit report",
            sentence=conclusion(report),
            passed=not report.failed,
            facts=_facts(report, benches),
            failed=[verdict.sentence for verdict in report.failed],
            undecided=[verdict.sentence for row in report.rows for verdict in row.verdicts if verdict.undecided],
            subjects=list(dict.fromkeys(map(tables.subject_of, report.rows))),
            targets=sorted({row.artifact.manifest.target for row in report.rows}),
            precisions=sorted({row.artifact.manifest.precision for row in report.rows}),
            changes=tables.changes(report.changes) if report.changes else None,
            changes_sentence=report.changes.sentence if report.changes else "",
            matrix=matrix.matrix(report),
            artifacts=tables.artifacts(report),
            synthetic=synthetic_note(report).splitlines(),
            tradeoffs=panels.tradeoffs(report),
            devices=panels.devices(report),
            side_by_side=tables.side_by_side(report),
            distributions=panels.distributions(report),
            distributions_table=tables.distributions(report),
            operators=tables.operators(report),
            runtime_versions=tables.runtime_versions(report),
            classes=tables.classes(report),
            evidence=[evidence.evidence(row) for row in report.rows],
            tiers={tier.name: tier.worth for tier in reversed(TIERS)},
            hosts=hosts,
            edgekit=report.edgekit,
            host=report.host,
        )

    def render_changes(self, changes: ChangeReport, *, color: bool = False) -> str:
        from edgekit.reports._html import tables

        table = tables.changes(changes)
        return _page(
            title="edgekit: changes",
            sentence=changes.sentence,
            passed=not changes.broken,
            facts=[],
            failed=[],
            undecided=[],
            subjects=list(dict.fromkeys(line.model for line in table.lines)),
            targets=sorted({line.target for line in table.lines}),
            precisions=sorted({line.precision for line in table.lines}),
            changes=table,
            changes_sentence=changes.sentence,
            artifacts=None,
        )


REPORT = HtmlReport()
