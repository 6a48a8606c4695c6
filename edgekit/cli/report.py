"""edgekit report"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import (
    ArtifactFilter,
    MlflowOptions,
    complete,
    mlflow_options,
    render_report,
    selection_options,
)
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.contracts.report import ReportFormat
    from edgekit.core.records.report import Report
    from edgekit.stages.context import Context
    from edgekit.stages.tracking.settings import Tracking


DEFAULT_FORMAT = "console"


class ReportFormatOption(click.Option):
    """Option whose help lists the installed report formats."""

    # Read when the help is shown, not at import: listing third-party formats reads a file of every distribution.
    @property
    def help(self) -> str:
        from edgekit.core.environment import plugin_registry

        names = plugin_registry.names("edgekit.reports")
        return ", ".join(f"{name} (default)" if name == DEFAULT_FORMAT else name for name in names) + "."

    @help.setter  # noqa: A003 - click reads the attribute by this name
    def help(self, text: str | None) -> None:
        """Ignore the help that click's constructor sets."""


@click.command("report", short_help="Show the results of all stages.")
@selection_options
@click.option(
    "--format",
    "format_name",
    cls=ReportFormatOption,
    default=None,
    metavar="NAME",
    shell_complete=complete("format"),
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file instead of stdout."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="JSON report of an earlier run: also show what has changed since then.",
)
@click.option(
    "--compare",
    "report_files",
    type=click.Path(path_type=Path),
    nargs=2,
    metavar="OLD NEW",
    help="Show only the differences between two JSON reports.",
)
@mlflow_options
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
    format_name: str | None,
    output: Path | None,
    baseline: Path | None,
    report_files: tuple[Path, Path] | None,
    mlflow: MlflowOptions,
) -> int:
    """Show the results of all stages for the artifacts in build/.

    With --compare, two runs are compared instead: changes in size, latency and accuracy, changed verdicts, new and
    missing artifacts. Figures that were measured on different hosts are not compared; the output says so.

    With --mlflow, the results are also logged to MLflow: one run for each source model, with a child run for each
    artifact. Results that have been logged before are not changed.

    \b
    Example:
      edgekit report
      edgekit report --format json --output report.json
      edgekit report simple_cnn --format html --output report.html
      edgekit report --format junit --output edgekit-junit.xml
      edgekit report --compare main.json branch.json --format markdown
      edgekit report --mlflow http://127.0.0.1:5000 --experiment edge
    """
    from edgekit.contracts.report import REPORTS
    from edgekit.core.environment.atomic_files import write_output

    name = format_name or ("json" if session.as_json else DEFAULT_FORMAT)
    report_format = REPORTS.load(name)
    color = session.color and output is None
    tracking = mlflow.tracking(session)
    if report_files:
        text, code = _compare(report_format, artifact_filter, baseline, report_files, color, tracking)
    else:
        text, code = _gather(session, report_format, artifact_filter, baseline, color, tracking)
    if output is None:
        session.print_report(report_format, text)
    else:
        write_output(output, text)
        session.print_result({"report": str(output), "format": name}, line(str(output)))
    return code


def _gather(
    session: CommandSession,
    report_format: ReportFormat,
    artifact_filter: ArtifactFilter,
    baseline: Path | None,
    color: bool,
    tracking: Tracking | None,
) -> tuple[str, int]:
    """Return the rendered report on build/ and the exit code."""
    from edgekit.core.records.report import load_report
    from edgekit.stages.gates.gather_report import gather
    from edgekit.stages.gates.regressions import compare_with_baseline
    from edgekit.stages.selection import Selection, artifacts

    baseline_report = load_report(baseline) if baseline else None
    selection = Selection(*artifact_filter)
    with session.context() as context:
        report = gather(context, artifacts(context, selection))
        if tracking is not None:
            _track(context, report, tracking)
    if baseline_report is not None:
        report = compare_with_baseline(report, baseline_report, str(baseline), selection)
    return report_format.render(report, color=color), context.exit_code


def _track(context: Context, report: Report, tracking: Tracking) -> None:
    """Log the report to MLflow; a failure is printed and sets the exit code, but does not stop the command."""
    from edgekit.stages.tracking.settings import STEP_NAME
    from edgekit.stages.tracking.track import track

    context.attempt(STEP_NAME, lambda: track(context, report, tracking, render_report), lambda tracked: tracked.summary)


def _compare(
    report_format: ReportFormat,
    artifact_filter: ArtifactFilter,
    baseline: Path | None,
    report_files: tuple[Path, Path],
    color: bool,
    tracking: Tracking | None,
) -> tuple[str, int]:
    """Return the rendered differences of two reports and the exit code, which is 0 whatever has changed."""
    from edgekit.core.errors import InputError
    from edgekit.core.records.regressions import RegressionThresholds
    from edgekit.core.records.report import load_report
    from edgekit.stages.gates.regressions import compare_reports

    if any(artifact_filter) or baseline or tracking:
        raise InputError(
            "--compare reads two files and cannot be combined with --baseline, --mlflow, models, --framework, --target"
            " or --precision"
        )
    old, new = (load_report(path) for path in report_files)
    changes = compare_reports(old, new, (str(report_files[0]), str(report_files[1])), RegressionThresholds())
    return report_format.render_changes(changes, color=color), 0
