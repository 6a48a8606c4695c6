"""edgekit targets"""

from __future__ import annotations

import click

from edgekit.cli._common import CommandSession, common


@click.command("targets", short_help="List the target formats and their sources.")
@common
def command(session: CommandSession) -> int:
    """List the target formats with their sources, precisions, runtimes and whether they are installed.

    \b
    Example:
      edgekit targets
      edgekit targets --json
    """
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.contracts.source import SOURCES
    from edgekit.reports.console import table
    from edgekit.stages.conversion import routes

    edges = routes.edges()
    data, rows = [], []
    for name, target in routes.targets().items():
        runtime = RUNTIMES.load(target.runtime)
        runs = all(requirement.installed() for requirement in runtime.requires)
        for kind in SOURCES.names():
            reached = routes.routes_by_precision(kind, target, edges)
            if not reached:
                continue
            needed = [item for found in reached.values() for item in target.requires[found[0].converter_kind]]
            installed = all(requirement.installed() for requirement in needed)
            data.append(
                {
                    "target": name,
                    "source": kind,
                    "routes": {precision: list(found[0].steps) for precision, found in reached.items()},
                    "runtime": target.runtime,
                    "runtimes": list(routes.runtimes_of(name)),
                    "suffix": target.suffixes[0],
                    "can_export": installed,
                    "can_run": runs,
                }
            )
            ready = "yes" if installed and runs else "see: edgekit doctor"
            titles = ", ".join(RUNTIMES.load(runner).title for runner in routes.runtimes_of(name))
            rows.append((name, kind, ", ".join(reached), target.suffixes[0], titles, ready))
    header = ("target", "from", "precisions", "file", "runtime", "installed")
    session.answer({"targets": data}, lambda: table(header, rows, left=6, color=session.color))
    return 0
