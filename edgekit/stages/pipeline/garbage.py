"""What the pipeline made and no step of the present `edgekit.toml` needs."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.build.file_digests import ABSENT, FileDigests
from edgekit.core.build.graph import Graph, StepKind, StepRecord
from edgekit.core.build.step_records import StepRecords
from edgekit.core.environment.atomic_files import mapped_write_errors, remove_stale_files
from edgekit.core.environment.project import Project


@dataclass(frozen=True)
class Garbage:
    """Files to remove, those that were changed since and stay, and the records of the steps that wrote them."""

    records: tuple[StepRecord, ...]
    files: tuple[str, ...]
    changed: tuple[str, ...]
    size_bytes: int

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(record.step for record in self.records)


def find(project: Project, graph: Graph, records: StepRecords, digests: FileDigests) -> Garbage:
    """Files that a step wrote that is no longer in the graph, unless one that is there wrote them too.

    What was made by other commands has no record, and is left alone.
    """
    unneeded: list[StepRecord] = []
    files: dict[str, None] = {}
    changed: dict[str, None] = {}
    kept = {path for step in graph.steps if (record := records.load(step.name)) for path in record.outputs}
    for record in records.all():
        if record.step in graph.by_name:
            continue
        unneeded.append(record)
        for path, digest in record.outputs.items():
            now = digests.of(path)
            if path in kept or now == ABSENT:
                continue
            (files if now == digest else changed)[path] = None
    size = sum((project.root / path).stat().st_size for path in files)
    return Garbage(tuple(unneeded), tuple(files), tuple(changed), size)


def remove(project: Project, garbage: Garbage, records: StepRecords) -> None:
    """Removes it, with the folders that it leaves empty and what killed runs left. Raises InputError when it cannot."""
    for name in garbage.files:
        path = project.root / name
        with mapped_write_errors(path):
            path.unlink(missing_ok=True)
        _remove_empty(path.parent, project.build)
    for record in garbage.records:
        if record.kind is StepKind.TRAIN and "model" in record.arguments:
            model, framework = record.arguments["model"], record.arguments["kind"]
            shutil.rmtree(project.checkpoint_folder(model, framework), ignore_errors=True)
            _remove_empty(project.build / model / framework, project.build)
        records.forget(record.step)
    for folder in (project.build, *project.build.glob("*"), *project.build.glob("*/*")):
        if folder.is_dir():
            remove_stale_files(folder)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and folder.is_relative_to(top):
        with contextlib.suppress(OSError):  # something stands in it, or it is gone
            folder.rmdir()
        folder = folder.parent
