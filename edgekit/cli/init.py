"""edgekit init"""

from __future__ import annotations

import click

from edgekit.cli._common import CommandSession, common


@click.command("init", short_help="Write an edgekit.toml for what is here.")
@click.option("--force", is_flag=True, help="Replace the edgekit.toml that is there.")
@common
def command(session: CommandSession, force: bool) -> int:
    """Write a commented edgekit.toml for the models that lie in the folder: files, and Python code that builds one.

    `edgekit run` carries it out. Code is looked at, not executed.

    \b
    Example:
      edgekit init
      edgekit init --root ~/detector
    """
    from edgekit.config.project import PROJECT_FILE
    from edgekit.core.environment.atomic_files import write_text
    from edgekit.core.errors import InputError
    from edgekit.stages.models.init import find_models, render_config

    path = session.project.root / PROJECT_FILE
    if path.exists() and not force:
        raise InputError(f"{path} is there already; --force replaces it")
    found = find_models(session.project)
    write_text(path, render_config(found))
    names = [item.path for item in found]
    what = f"for {', '.join(names)}" if names else "for a reference model: there is no model of yours in this folder"
    session.answer({"written": str(path), "models": names}, f"{path}: {what}; carry it out with: edgekit run\n")
    return 0
