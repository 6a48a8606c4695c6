"""The first code of a child process: set the limits, watch the parent, then run a module.

`python -m edgekit.workers._bootstrap LIVENESS_FD LIMITS_JSON MODULE [ARGUMENT ...]`. Imports only the standard library.
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


def apply_limits(cpus: list[int] | None, memory_limit_bytes: int | None) -> None:
    """Pin this process to cores and bound its memory.

    Args:
        cpus: The core numbers, or None for all cores.
        memory_limit_bytes: The bound on private writable memory (RLIMIT_DATA) in bytes, or None for no bound.
    """
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
    """Apply the limits of the command line and run its module with the remaining arguments."""
    liveness_fd, limits, module = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    # The watcher starts first, so that no child outlives a parent that is killed during the imports below.
    threading.Thread(target=die_with_parent, args=(liveness_fd,), daemon=True).start()
    apply_limits(**limits)
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
