"""First code of a child: limits itself, ties its life to its parent's, then runs a module.

`python -m edgekit.workers._bootstrap LIFE_FD LIMITS_JSON MODULE [ARGUMENT ...]`. Imports the standard library only.
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


def die_with_parent(life_fd: int) -> None:
    os.read(life_fd, 1)  # returns only when the write end is closed: nobody writes
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with whatever this process started: compilers, an emulator
    os._exit(1)


def apply_limits(cpus: list[int] | None, memory_limit_bytes: int | None) -> None:
    if cpus and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may forbid it; the figure then says what it ran on
            os.sched_setaffinity(0, cpus)
    if memory_limit_bytes is not None:
        import numpy  # noqa: F401 - its OpenBLAS waits for ever where it cannot have its buffers

        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected; core files of gigabytes are not


def main() -> None:
    """Limits, then the module with the rest of the arguments as its own."""
    life_fd, limits, module = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    threading.Thread(target=die_with_parent, args=(life_fd,), daemon=True).start()
    apply_limits(**limits)
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
