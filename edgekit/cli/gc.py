"""edgekit gc"""

from __future__ import annotations

import click

from edgekit.cli._common import CommandSession, common, plan_of, waiting


@click.command("gc", short_help="Remove what edgekit.toml no longer needs.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@common
def command(session: CommandSession, dry_run: bool) -> int:
    """Remove what `edgekit run` made and no step of the present edgekit.toml needs.

    What other commands made is left alone, and so is a file that was changed since. A run that is under way in the same
    folder is waited for.

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
    planned, _ = plan_of(session, digests, records.plan_file)
    with records.locked(waiting):
        garbage = find(project, planned.graph, records, digests)
        if not dry_run:
            remove(project, garbage, records)
    data = {
        "removed": [] if dry_run else list(garbage.files),
        "would_remove": list(garbage.files) if dry_run else [],
        "changed_and_kept": list(garbage.changed),
        "size_bytes": garbage.size_bytes,
    }
    lines = [f"{'would remove' if dry_run else 'removed'}  {path}\n" for path in garbage.files]
    lines += [f"kept     {path}: it was changed since it was made\n" for path in garbage.changed]
    verb = "would be freed" if dry_run else "freed"
    lines.append(f"{len(garbage.files)} files, {format_bytes(garbage.size_bytes)} {verb}\n")
    session.answer(data, "".join(lines))
    return 0
