"""The worker jobs that try arena sizes: an arena that is too small may crash the process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.requirements import require
from edgekit.core.events import Listener
from edgekit.core.records.memory_plan import Arena
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class ArenaRequest:
    """A model to run in an arena.

    Attributes:
        runtime: The name of the runtime.
        path: The model file, absolute.
        size: The size of the arena in bytes.
    """

    runtime: str
    path: str
    size: int


@worker_job
def try_arena(request: ArenaRequest, _emit: Listener) -> str | None:
    """Try to run a model in an arena of a given size.

    Args:
        request: The model and the size of the arena.

    Returns:
        Why the model does not run, or None if it runs.

    Raises:
        MissingDependency: The runtime is not installed.
    """
    runtime = RUNTIMES.load(request.runtime)
    require(runtime.requires, runtime.title)
    return runtime.try_arena(Path(request.path), request.size)


@worker_job
def read_allocation(request: ArenaRequest, _emit: Listener) -> Arena:
    """Return how the arena is divided.

    Args:
        request: The model and the size of the arena.

    Returns:
        The parts of the arena in bytes.
    """
    return RUNTIMES.load(request.runtime).read_allocation(Path(request.path), request.size)
