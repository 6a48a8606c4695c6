"""Permission to run the code that a source's record names.

A record is a file. It may come from somebody else with the rest of a build folder, so what it names is not yet code
that the user named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgekit.config.project import PROJECT_FILE, load_project
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.user_code import Factory, RecordedCode
from edgekit.core.errors import InputError
from edgekit.core.records.source import SourceModel
from edgekit.stages.context import Context


def recorded_code(context: Context, source: SourceModel) -> RecordedCode | None:
    """Return the code of a source, if it may be run.

    Code inside the project, or in the folder of the reference model, may be run while it is the code that the record
    was made with. Other code, an installed module included, may be run only if the user named it in this run or in
    edgekit.toml.

    Args:
        context: The project, and the code that the user named.
        source: The record.

    Returns:
        The code, which the worker checks again; None if the source needs none.

    Raises:
        InputError: The code has changed, is missing, or is outside the project and was not named by the user.
    """
    if source.code is None:
        return None
    base = context.project.code_base(source.name)
    factory = Factory.parse(source.code)
    trained = source.name in context.project.models()
    command = f"edgekit train {source.name}" if trained else f"edgekit export {source.code} --name {source.name}"
    file: Path | None
    try:
        file = factory.file_inside(base)
    except InputError:
        if source.code not in context.named_code and source.code not in _configured_code(context.project.root):
            raise InputError(
                f"{source.name}: its record names the code {source.code}, which is not inside {base}; edgekit runs such"
                f" code only if you name it: list it in {PROJECT_FILE}, or import the model again: {command}"
            ) from None
        file = factory.file(base)
    if file is not None and not file.is_file():
        raise InputError(f"{source.name}: {file}, the code that builds its network, is missing; run: {command}")
    if file is not None and sha256_file(file) != source.code_sha256:
        done = "trained" if trained else "imported"
        raise InputError(
            f"{source.name}: {file.name} has changed since these weights were {done}; run: {command}"
            + ("" if trained else " (and --weights)")
        )
    return RecordedCode(source.code, str(base), None if file is None else str(file), source.code_sha256)


def _configured_code(root: Path) -> set[str]:
    """Return the code that edgekit.toml names, as records write it."""
    if not (root / PROJECT_FILE).is_file():
        return set()
    return set(_references(root))


def _references(root: Path) -> Iterator[str]:
    for entry in load_project(root).value.models:
        if entry.path is None or not entry.is_code:
            continue
        factory = Factory.parse(entry.path)
        if factory.where.endswith(".py"):
            yield f"{(root / Path(factory.where).expanduser()).resolve()}:{factory.name}"
        else:
            yield entry.path
