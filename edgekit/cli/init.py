"""edgekit init"""

from __future__ import annotations

import click

from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line


@click.command("init", short_help="Write an edgekit.toml for the models in a folder.")
@click.option("--force", is_flag=True, help="Replace an existing edgekit.toml.")
@common_options
def command(session: CommandSession, force: bool) -> int:
    """Write a commented edgekit.toml for the models in the project folder: files, and Python code that builds a model.

    Python files are parsed, not executed. `edgekit run` runs the pipeline of the file.

    \b
    Example:
      edgekit init
      edgekit init --root ~/detector
    """
    from edgekit.config.project import PROJECT_FILE
    from edgekit.core.environment.atomic_files import write_output
    from edgekit.core.errors import InputError
    from edgekit.stages.models.init import find_models, render_config

    path = session.project.root / PROJECT_FILE
    if path.exists() and not force:
        raise InputError(f"{path} already exists; use --force to replace it")
    models = find_models(session.project)
    write_output(path, render_config(models))
    names = [model.path for model in models]
    purpose = f"for {', '.join(names)}" if names else "for a reference model, because this folder contains no model"
    session.print_result({"written": str(path), "models": names}, line(f"{path}: {purpose}; run it with: edgekit run"))
    return 0
