"""One self-contained HTML page: it loads nothing, has a table for every chart, and can be printed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.contracts.report import ReportFormat
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.regressions import ChangeReport
from edgekit.core.records.report import Report
from edgekit.core.values.tiers import TIERS
from edgekit.reports._html.svg import shared_markers
from edgekit.reports._shared.cells import NOTHING, conclusion

JINJA2 = Requirement("jinja2", "jinja2", "report")
MATPLOTLIB = Requirement("matplotlib", "matplotlib", "report")

_PAGE = Path(__file__).parent / "_html" / "page"


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _page(**parts: Any) -> str:
    require((MATPLOTLIB, JINJA2), "the format html")
    files = {name: (_PAGE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    text: str = _template().render(nothing=NOTHING, **files, **parts)
    markers, text = shared_markers(_aligned(_shared_styles(text)))
    text = text.replace("<defs></defs>", f"<defs>{markers}</defs>", 1)
    return text.strip("\n") + "\n"


def _aligned(text: str) -> str:
    """Return the page with a CSS rule for each numeric column; the class `n3` of a table marks its third column."""
    classes = {name for names in re.findall(r'class="figures((?: n\d+)*)"', text) for name in names.split()}
    columns = sorted(int(name[1:]) for name in classes)
    rules = "".join(f".n{index} :is(td,th):nth-child({index}){{text-align:right}}\n" for index in columns)
    return text.replace("</style>", f"{rules}</style>", 1)


def _shared_styles(text: str) -> str:
    """Return the page with the inline styles of charts as classes: a few dozen styles are used thousands of times."""
    names: dict[str, str] = {}

    def as_class(match: re.Match[str]) -> str:
        return f'class="{names.setdefault(match[1], f"y{len(names)}")}"'

    text = re.sub(r'style="((?:fill|stroke|font-size)[^"]*)"', as_class, text)
    rules = "".join(f".{name}{{{style}}}\n" for style, name in names.items())
    return text.replace("</style>", f"{rules}</style>", 1)


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
        require((MATPLOTLIB, JINJA2), "the format html")
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
            tradeoffs=panels.tradeoffs(report),
            devices=panels.devices(report),
            side_by_side=tables.side_by_side(report),
            distributions=panels.distributions(report),
            distributions_table=tables.distributions(report),
            operators=tables.operators(report),
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
