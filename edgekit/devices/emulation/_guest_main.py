"""Runs one command and ends with its exit code or signal: `python -m edgekit.devices.emulation._guest_main SPEC.json`.

The worker's start-up code limits this Python process and ties it to its parent, which it cannot do with the emulator.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

# From linux/personality.h: turns address space layout randomization off.
_ADDR_NO_RANDOMIZE = 0x0040000


def _disable_aslr() -> None:
    """Turn address randomization off, since addresses select cache sets and change misses; containers may refuse."""
    libc = ctypes.CDLL(None)
    libc.personality(libc.personality(0xFFFFFFFF) | _ADDR_NO_RANDOMIZE)


def main() -> None:
    """Run the command of the JSON file and end with its exit code, or with the signal that ended it."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    _disable_aslr()
    process = subprocess.run(spec["command"], env=spec["variables"], stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    if process.returncode < 0:
        number = signal.Signals(-process.returncode)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
