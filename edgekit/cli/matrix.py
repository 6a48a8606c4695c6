"""edgekit matrix"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import complete, failures, timeout_option
from edgekit.cli._session import CommandSession, common_options

if TYPE_CHECKING:
    from edgekit.stages.validation.matrix import Cell


@click.command("matrix", short_help="Convert and validate every source in every variant.")
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete("model"))
@timeout_option
@common_options
def command(session: CommandSession, models: tuple[str, ...], timeout: float) -> int:
    """Convert every source of the models to every variant, validate each artifact and print a table.

    A row shows the error, the size and the route, or the reason why the combination is impossible. The exit code is 1
    if an artifact is not equal to its source, and 4 if a step did not finish.

    \b
    Example:
      edgekit matrix simple_cnn
      edgekit matrix --json
    """
    from dataclasses import asdict

    from edgekit.stages.conversion.export_plans import ExportSettings
    from edgekit.stages.models import model_refs
    from edgekit.stages.validation.matrix import matrix

    with session.context(timeout) as context:
        groups = model_refs.resolve(context, models, None, model_refs.UserModelOptions())
        cells = matrix(context, groups, ExportSettings())
    data = {
        "cells": [{**asdict(cell), "variant": str(cell.variant)} for cell in cells],
        "failures": failures(context),
    }
    session.print_result(data, lambda: _render(cells, session.color))
    return max(context.exit_code, 1 if any(cell.state == "unequal" for cell in cells) else 0)


def _render(cells: tuple[Cell, ...], color: bool) -> str:
    from edgekit.core.units import format_bytes
    from edgekit.reports.console import table

    rows = [
        (
            f"{cell.model}/{cell.kind}",
            str(cell.variant),
            cell.state if cell.state in ("equal", "impossible") else "FAILED",
            "" if cell.size_bytes is None else format_bytes(cell.size_bytes),
            "" if cell.max_abs_error is None else f"{cell.max_abs_error:.1e}",
            " -> ".join(cell.route) or cell.detail,
        )
        for cell in cells
    ]
    header = ("source", "variant", "cell", "size", "max err", "route, or why not")
    counts = Counter(cell.state for cell in cells)
    summary = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{table(header, rows, left=6, color=color)}{len(cells)} cells: {summary}\n"
