"""edgekit targets"""

from __future__ import annotations

import click

from edgekit.cli._session import CommandSession, common_options


@click.command("targets", short_help="List the target formats and their sources.")
@common_options
def command(session: CommandSession) -> int:
    """List the target formats with their sources, precisions, runtimes and whether they are installed.

    Precisions on request are exported only where they are named, such as `onnx:int4`.

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
        can_run = all(requirement.installed() for requirement in runtime.requires)
        for kind in SOURCES.names():
            routes_by_precision = routes.routes_by_precision(kind, target, edges)
            if not routes_by_precision:
                continue
            requirements = [
                requirement
                for precision_routes in routes_by_precision.values()
                for requirement in target.requires[precision_routes[0].converter_kind]
            ]
            installed = all(requirement.installed() for requirement in requirements)
            data.append(
                {
                    "target": name,
                    "source": kind,
                    "routes": {
                        precision: list(precision_routes[0].steps)
                        for precision, precision_routes in routes_by_precision.items()
                    },
                    "on_request": sorted(target.on_request.intersection(routes_by_precision)),
                    "runtime": target.runtime,
                    "runtimes": list(routes.runtimes_of(name)),
                    "suffix": target.suffixes[0],
                    "can_export": installed,
                    "can_run": can_run,
                }
            )
            readiness = "yes" if installed and can_run else "see: edgekit doctor"
            titles = ", ".join(RUNTIMES.load(runner).title for runner in routes.runtimes_of(name))
            defaults = ", ".join(name for name in routes_by_precision if name not in target.on_request)
            requested = ", ".join(name for name in routes_by_precision if name in target.on_request)
            rows.append((name, kind, defaults, requested or "-", target.suffixes[0], titles, readiness))
    header = ("target", "from", "precisions", "on request", "file", "runtime", "installed")
    session.print_result({"targets": data}, lambda: table(header, rows, left=7, color=session.color))
    return 0
