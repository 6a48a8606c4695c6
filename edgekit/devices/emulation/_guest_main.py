"""Runs one command and dies as it died: `python -m edgekit.devices.emulation._guest_main SPEC.json`.

Between a worker's first code, which limits the process and ties it to its parent, and the emulator, which is no Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h


def _same_addresses() -> None:
    """The sets of a cache are chosen by address: the same ones give the same misses. A container may refuse it."""
    libc = ctypes.CDLL(None)
    libc.personality(libc.personality(0xFFFFFFFF) | _ADDR_NO_RANDOMIZE)


def main() -> None:
    """The command, its environment; then its exit code, or its signal."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    _same_addresses()
    done = subprocess.run(spec["command"], env=spec["variables"], stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode < 0:
        number = signal.Signals(-done.returncode)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
