"""Functions that run in worker processes, with the types of their request and answer.

`@worker_job` marks a function of one request. `pool.call(job, request, ...)` sends the request to a worker and returns
the answer; mypy checks both. The job travels by its name, so that the parent process imports none of what it uses.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Generic, TypeVar

from edgekit.core.errors import StepFailed
from edgekit.core.events import Listener, ignore

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class WorkerJob(Generic[Request, Answer]):
    """A function that a worker calls with a request and a listener for events.

    Attributes:
        function: The function itself.
        name: `module:function`, under which the worker finds the job.
    """

    def __init__(self, function: Callable[[Request, Listener], Answer]) -> None:
        self.function = function
        self.name = f"{function.__module__}:{function.__qualname__}"
        functools.update_wrapper(self, function)

    def __call__(self, request: Request, emit: Listener = ignore) -> Answer:
        """Run the job in this process."""
        return self.function(request, emit)

    def __repr__(self) -> str:
        return f"WorkerJob({self.name})"


def worker_job(function: Callable[[Request, Listener], Answer]) -> WorkerJob[Request, Answer]:
    """Mark a function as one that runs in worker processes.

    Args:
        function: A module-level function of a request, which must be picklable, and of a listener for events.

    Returns:
        The job to pass to `WorkerPool.call`.
    """
    return WorkerJob(function)


def find_job(name: str) -> WorkerJob[object, object]:
    """Return the job of a name `module:function`, in a worker.

    Raises:
        StepFailed: The name is not that of a function marked with `@worker_job`: a worker runs nothing else.
    """
    module, _, function = name.partition(":")
    job = getattr(importlib.import_module(module), function, None)
    if not isinstance(job, WorkerJob):
        raise StepFailed(f"{name} is not a worker job")
    return job
