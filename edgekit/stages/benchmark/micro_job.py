"""Trying arenas of TensorFlow Lite Micro; runs inside a worker, because an arena that is too small may crash it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.requirements import require
from edgekit.core.events import Listener
from edgekit.core.records.memory_plan import Arena
from edgekit.runtimes.tflite_micro import RUNTIME
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class ArenaRequest:
    """A model file, absolute, and the size of an arena in bytes."""

    path: str
    size: int


@worker_job
def try_arena(request: ArenaRequest, _emit: Listener) -> str | None:
    """Return why the model does not run in an arena of that size, or None."""
    require(RUNTIME.requires, "TensorFlow Lite Micro")
    return RUNTIME.attempt(Path(request.path), request.size)


@worker_job
def read_allocation(request: ArenaRequest, _emit: Listener) -> Arena:
    """Return what the arena consists of."""
    return RUNTIME.allocation(Path(request.path), request.size)
