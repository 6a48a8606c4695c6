"""The worker jobs that truncate a model file after its operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.damaged_files import damage_reported
from edgekit.core.events import Listener
from edgekit.core.records.operator_costs import Operator
from edgekit.stages.conversion.describe_job import FileRequest, open_target
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class TruncateRequest:
    """A request to truncate a model file after each of some operators.

    Attributes:
        file: The model file.
        after: The indices of the operators, from 0.
        folder: The folder for the truncated files, absolute.
    """

    file: FileRequest
    after: tuple[int, ...]
    folder: str


@worker_job
def list_operators(request: FileRequest, _emit: Listener) -> tuple[Operator, ...]:
    """Return the operators of a model file.

    Args:
        request: The model file.

    Returns:
        The operators after which the file can be truncated, in execution order.
    """
    target, path = open_target(request)
    with damage_reported(path, target.title):
        return target.operators(path)


@worker_job
def truncate(request: TruncateRequest, _emit: Listener) -> tuple[Path, ...]:
    """Write one truncated file for each requested operator.

    Args:
        request: The model file, the operators and the folder.

    Returns:
        The truncated files, in the order of the operators.
    """
    target, path = open_target(request.file)
    return target.truncate_after(path, request.after, Path(request.folder))
