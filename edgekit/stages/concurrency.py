"""Concurrent execution of tasks that each wait for a worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from edgekit.devices import host_machine
from edgekit.workers.process import stop_all

T = TypeVar("T")

# A process that has imported a framework, or an emulated one, takes about 1.5 GiB before it loads a model.
PROCESS_MEMORY_BYTES = 3 * 2**29
# Interval in seconds at which processes are stopped again: a thread may have been about to start one.
_STOP_INTERVAL_S = 0.05


def default_parallelism(memory_bytes: int) -> int:
    """Return the number of processes that the available cores and the memory allow, at least 1.

    Args:
        memory_bytes: The memory that the processes may use together.
    """
    return max(1, min(len(host_machine.available_cpus()), memory_bytes // PROCESS_MEMORY_BYTES))


def run_concurrently(
    tasks: Sequence[Callable[[], T]], count: int, stop: Callable[[], None]
) -> Iterator[tuple[int, Future[T]]]:
    """Run tasks concurrently and yield each result as soon as it is available.

    Closing the iterator early (Ctrl-C) cancels the tasks that have not started and stops the processes of the others.
    No task is running when it returns.

    Args:
        tasks: The tasks.
        count: The maximum number of tasks that run at a time.
        stop: Called on early closing; keeps warm workers from accepting further requests.

    Yields:
        The index of a task and its completed future.
    """
    with ThreadPoolExecutor(count) as executor:
        indices = {executor.submit(task): index for index, task in enumerate(tasks)}
        try:
            for future in as_completed(indices):
                yield indices[future], future
        finally:
            running = [future for future in indices if not future.cancel() and not future.done()]
            if running:
                stop()
            while running:
                stop_all()
                running = list(wait(running, _STOP_INTERVAL_S).not_done)
