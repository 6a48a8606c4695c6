"""edgekit gc"""

from __future__ import annotations

import click

from edgekit.cli._common import load_plan, print_waiting
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line


@click.command("gc", short_help="Remove files that edgekit.toml no longer needs.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@common_options
def command(session: CommandSession, dry_run: bool) -> int:
    """Remove files that `edgekit run` wrote and that no step of the current edgekit.toml needs.

    Files of other commands are not removed, nor are files that have been modified since they were written or that are
    outside the project. If another run is in progress in the same folder, the command waits for it.

    \b
    Example:
      edgekit gc --dry-run
      edgekit gc
    """
    from edgekit.core.build.step_records import StepRecords
    from edgekit.core.units import format_bytes
    from edgekit.stages.pipeline.garbage import find, remove

    project = session.project
    records = StepRecords(project.build)
    digests = records.digests(project.root)
    plan, _ = load_plan(session, digests, records.plan_file)
    with records.locked(print_waiting):
        garbage = find(project, plan.graph, records, digests)
        if not dry_run:
            remove(project, garbage, records)
    data = {
        "removed": [] if dry_run else list(garbage.files),
        "would_remove": list(garbage.files) if dry_run else [],
        "changed_and_kept": list(garbage.changed),
        "outside_and_kept": list(garbage.outside),
        "size_bytes": garbage.size_bytes,
    }
    lines = [line(f"{'would remove' if dry_run else 'removed'}  {path}") for path in garbage.files]
    lines += [line(f"kept     {path}: modified since it was written") for path in garbage.changed]
    lines += [line(f"kept     {path}: outside the project") for path in garbage.outside]
    verb = "would be freed" if dry_run else "freed"
    lines.append(line(f"{len(garbage.files)} files, {format_bytes(garbage.size_bytes)} {verb}"))
    session.print_result(data, "".join(lines))
    return 0
