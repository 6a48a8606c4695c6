"""Reading of model files; runs inside a worker, because a damaged file may crash the library that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.target import TARGETS, Target
from edgekit.core.environment.damaged_files import damage_reported
from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError
from edgekit.core.events import Listener
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.values.specs import ModelDescription
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class FileRequest:
    """A model file and the target of its format. The path is absolute."""

    target: str
    path: str


def open_target(request: FileRequest) -> tuple[Target, Path]:
    """Return the target and the path of a file, after checking that the file can be read.

    Args:
        request: The file.

    Raises:
        InputError: There is no such file.
        MissingDependency: A package that reads the format is not installed.
    """
    target, path = TARGETS.load(request.target), Path(request.path)
    require(target.reads_with, f"reading {target.suffixes[0]} files")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    return target, path


@worker_job
def describe_file(request: FileRequest, _emit: Listener) -> ModelDescription:
    """Describe the contents of a model file.

    Args:
        request: The file.
        _emit: Receives no events.

    Raises:
        InputError: There is no such file, or it is damaged.
        MissingDependency: A package that reads the format is not installed.
    """
    target, path = open_target(request)
    with damage_reported(path, target.title):
        return target.describe(path)


@worker_job
def read_lifetimes(request: FileRequest, _emit: Listener) -> tuple[TensorLifetime, ...]:
    """Return the lifetime of each computed tensor of a model file.

    Args:
        request: The file.
        _emit: Receives no events.

    Raises:
        InputError: There is no such file, or it is damaged.
        MissingDependency: A package that reads the format is not installed.
    """
    target, path = open_target(request)
    with damage_reported(path, target.title):
        return target.tensor_lifetimes(path)
