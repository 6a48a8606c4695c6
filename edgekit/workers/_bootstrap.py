"""The first code of a child process: confine it, watch the parent, set the limits, then run a module.

`python -m edgekit.workers._bootstrap LIVENESS_FD LIMITS_JSON MODULE [ARGUMENT ...]`. Imports only the
standard library and `edgekit.workers.confinement`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence

from edgekit.workers import confinement


def die_with_parent(liveness_fd: int) -> None:
    """Block until the parent has ended, then kill this process and everything that it started.

    Args:
        liveness_fd: The read end of a pipe whose write end only the parent holds.
    """
    # Nobody writes to the pipe: read() returns when the kernel closes the write end, also after SIGKILL of the parent.
    # prctl(PR_SET_PDEATHSIG) would not do: it follows the parent's thread, not its process, and is Linux only.
    os.read(liveness_fd, 1)
    # A process that does not lead a group of its own would kill its parent's group.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # including compilers and emulators that this process started
    os._exit(1)


def start(
    liveness_fd: int,
    *,
    cpus: Sequence[int] | None,
    memory_limit_bytes: int | None,
    confine: Mapping[str, Sequence[str]] | None,
) -> None:
    """Confine this process, tie it to its parent, pin it to cores and bound its memory.

    Args:
        liveness_fd: The read end of a pipe whose write end only the parent holds.
        cpus: The core numbers, or None for all cores.
        memory_limit_bytes: The bound on private writable memory (RLIMIT_DATA) in bytes, or None for no bound.
        confine: The fields of a `Confinement`, or None for no confinement.
    """
    # First, while there is one thread: a confinement holds for this thread and for those that it starts.
    if confine is not None:
        confinement.confine(confinement.Confinement(tuple(confine["writable"]), tuple(confine["programs"])))
    # Before the limits, so that no child outlives a parent that is killed during the import below.
    threading.Thread(target=die_with_parent, args=(liveness_fd,), daemon=True).start()
    _apply_limits(cpus, memory_limit_bytes)


def _apply_limits(cpus: Sequence[int] | None, memory_limit_bytes: int | None) -> None:
    """Pin this process to cores and bound its memory."""
    if cpus and hasattr(os, "sched_setaffinity"):
        # A container may forbid pinning. A measurement without it is still valid, and records the cores it ran on.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)
    if memory_limit_bytes is not None:
        # Import numpy before the limit holds: its OpenBLAS retries for ever when it cannot allocate its buffers.
        import numpy  # noqa: F401

        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
    # Crashes of converters are expected; a core file of a process with a framework in it has gigabytes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Set up this process as the command line says, and run its module with the remaining arguments."""
    liveness_fd, limits, module = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    start(liveness_fd, **limits)
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
