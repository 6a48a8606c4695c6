"""edgekit report"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli._common import Choice, Run, common, complete, selection_options


@click.command("report", short_help="Show all that the stages found out.")
@selection_options
@click.option(
    "--format",
    "format_name",
    default=None,
    metavar="NAME",
    shell_complete=complete("format"),
    help="console (default), csv, github-annotations, github-summary, gitlab-codequality, html, json, junit, markdown.",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead of stdout."
)
@common
def command(
    run: Run,
    choice: Choice,
    format_name: str | None,
    output: Path | None,
) -> int:
    """Show everything that the stages found out about the artifacts in build/.

    \b
    Example:
      edgekit report
      edgekit report --format json --output report.json
      edgekit report simple_cnn --format html --output report.html
      edgekit report --format junit --output edgekit-junit.xml
    """
    from edgekit.core import plugins
    from edgekit.core.files import write_text
    from edgekit.reports._base import ReportFormat
    from edgekit.stages.report import gather
    from edgekit.stages.select import Selection, artifacts

    name = format_name or ("json" if run.as_json else "console")
    report_format: ReportFormat = plugins.load("edgekit.reports", name, "REPORT")
    with run.context() as context:
        report = gather(context, artifacts(context, Selection(*choice)))
    text = report_format.render(report, color=run.color and output is None)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        run.answer({"report": str(output), "format": name}, f"{output}\n")
    return context.exit_code
