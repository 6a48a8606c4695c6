"""Trying arenas of a microcontroller's runtime; runs inside a worker: an arena that is too small may crash it."""

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
    """A model file, absolute, its runtime, and the size of an arena in bytes."""

    runtime: str
    path: str
    size: int


@worker_job
def try_arena(request: ArenaRequest, _emit: Listener) -> str | None:
    """Return why the model does not run in an arena of that size, or None."""
    runtime = RUNTIMES.load(request.runtime)
    require(runtime.requires, runtime.title)
    return runtime.try_arena(Path(request.path), request.size)


@worker_job
def read_allocation(request: ArenaRequest, _emit: Listener) -> Arena:
    """Return what the arena consists of."""
    return RUNTIMES.load(request.runtime).read_allocation(Path(request.path), request.size)
