"""Finds and removes files of earlier runs that no step of the current `edgekit.toml` produces."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.build.file_digests import ABSENT, FileDigests
from edgekit.core.build.graph import Graph, StepKind, StepRecord
from edgekit.core.build.step_records import StepRecords
from edgekit.core.environment.atomic_files import mapped_write_errors, remove_stale_files
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError


@dataclass(frozen=True)
class Garbage:
    """The outputs of steps that are no longer in the graph.

    Attributes:
        records: The records of these steps.
        files: The files to remove, relative to the project's root.
        changed: Files that were edited since the step wrote them; they are kept.
        outside: Paths that lead outside the project; they are kept, and nothing is read there.
        size_bytes: The size of the files to remove.
    """

    records: tuple[StepRecord, ...]
    files: tuple[str, ...]
    changed: tuple[str, ...]
    outside: tuple[str, ...]
    size_bytes: int

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(record.step for record in self.records)


def find(project: Project, graph: Graph, records: StepRecords, digests: FileDigests) -> Garbage:
    """Find the files of steps that are no longer in the graph, unless a current step writes them too.

    Files of other commands have no step record and are never listed.

    Args:
        project: The project.
        graph: The graph of the current `edgekit.toml`.
        records: The records of all steps that have run.
        digests: The current digests of the project's files.

    Returns:
        The records and files that can be removed.
    """
    unneeded: list[StepRecord] = []
    files: dict[str, None] = {}
    changed: dict[str, None] = {}
    outside: dict[str, None] = {}
    kept = {path for step in graph.steps if (record := records.load(step.name)) for path in record.outputs}
    for record in records.all():
        if record.step in graph.by_name:
            continue
        unneeded.append(record)
        for path, digest in record.outputs.items():
            if not _is_inside(project.root, path):
                outside[path] = None
                continue
            current = digests.of(path)
            if path in kept or current == ABSENT:
                continue
            (files if current == digest else changed)[path] = None
    size = sum((project.root / path).stat().st_size for path in files)
    return Garbage(tuple(unneeded), tuple(files), tuple(changed), tuple(outside), size)


def remove(project: Project, garbage: Garbage, records: StepRecords) -> None:
    """Remove the files, the folders that become empty, and temporary files of killed runs.

    Args:
        project: The project.
        garbage: The result of `find`.
        records: The step records, of which those of the garbage are removed.

    Raises:
        InputError: A file cannot be removed.
    """
    for name in garbage.files:
        path = path_inside(project.root, name)
        with mapped_write_errors(path):
            path.unlink(missing_ok=True)
        _remove_empty(path.parent, project.build)
    for record in garbage.records:
        if record.kind is StepKind.TRAIN and "model" in record.arguments:
            model, framework = record.arguments["model"], record.arguments["kind"]
            checkpoint = project.checkpoint_folder(model, framework)
            if _is_inside(project.build, f"{model}/{framework}") and _is_inside(project.root, f"build/{model}"):
                shutil.rmtree(checkpoint, ignore_errors=True)
                _remove_empty(checkpoint.parent, project.build)
        records.forget(record.step)
    for folder in (project.build, *project.build.glob("*"), *project.build.glob("*/*")):
        if folder.is_dir() and _is_inside(project.root, folder.relative_to(project.root).as_posix()):
            remove_stale_files(folder)


def _is_inside(folder: Path, name: str) -> bool:
    try:
        path_inside(folder, name)
    except InputError:
        return False
    return True


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and folder.is_relative_to(top):
        with contextlib.suppress(OSError):  # the folder is not empty, or does not exist
            folder.rmdir()
        folder = folder.parent
