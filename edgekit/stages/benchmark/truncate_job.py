"""Truncating a model file after its operators; runs inside a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.events import Listener
from edgekit.core.records.operator_costs import Operator
from edgekit.stages.conversion.describe_job import FileRequest, open_target
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class TruncateRequest:
    """A file to truncate after each of some operators, counted from 0, into files in a folder."""

    file: FileRequest
    after: tuple[int, ...]
    folder: str


@worker_job
def list_operators(request: FileRequest, _emit: Listener) -> tuple[Operator, ...]:
    """Return the operators after which the file can be truncated."""
    target, path = open_target(request)
    return target.operators(path)


@worker_job
def truncate(request: TruncateRequest, _emit: Listener) -> tuple[Path, ...]:
    """Write the files that end after these operators."""
    target, path = open_target(request.file)
    return target.truncate_after(path, request.after, Path(request.folder))
