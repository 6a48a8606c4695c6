"""Several pieces of work at once, each of which waits for a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from edgekit.devices import host_machine
from edgekit.workers.process import stop_all

T = TypeVar("T")

PROCESS_MEMORY_BYTES = 3 * 2**29
"""What a process with a framework in it takes, or an emulated one, before it has loaded a model."""


def default_parallelism(memory_bytes: int) -> int:
    """As many processes as there are cores, and as memory allows."""
    return max(1, min(len(host_machine.available_cpus()), memory_bytes // PROCESS_MEMORY_BYTES))


def run_concurrently(
    work: Sequence[Callable[[], T]], count: int, stop: Callable[[], None]
) -> Iterator[tuple[int, Future[T]]]:
    """Each piece's number and result, as they end; `count` of them run at a time.

    Whoever stops listening (Ctrl-C) ends those that run, and none is left when this returns; `stop` keeps warm workers
    from taking on more.
    """
    with ThreadPoolExecutor(count) as executor:
        numbers = {executor.submit(item): number for number, item in enumerate(work)}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future
        finally:
            left = [future for future in numbers if not future.cancel() and not future.done()]
            if left:
                stop()
            while left:
                stop_all()  # again: a thread may have been about to start a process
                left = list(wait(left, 0.05).not_done)
