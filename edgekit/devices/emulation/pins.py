"""The packages of the emulated arm64 system; wheels are pinned, so that counts do not change unnoticed.

`guest_wheels.lock` holds the hashes of each pin, of the files for every version of Python; `make lock` writes it. The
Debian packages and their dependencies are those that this machine's distribution offers for arm64. Their versions and
hashes are written to the folder's record.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from edgekit.core.errors import InputError

LOCK = Path(__file__).with_name("guest_wheels.lock")

# Part of every folder's name; increase it when the same pins result in different folders.
LAYOUT = 1

# Depends on the versioned package of the distribution's Python, such as python3.11-minimal.
PYTHON_PACKAGE = "python3-minimal"

# The shared libraries that the wheels and Python link to, beside the C library.
LIBRARIES = ("libstdc++6", "libgcc-s1", "zlib1g")

# Without further dependencies: the two runtimes import nothing else, although their metadata lists more.
BASE_WHEELS = ("ai-edge-litert==2.3.0", "numpy==2.3.5", "onnxruntime==1.32.0")

# The newest torch whose arm64 wheel is a CPU build: later ones bring CUDA.
TORCH_WHEELS = (
    "torch==2.8.0",
    "filelock==3.19.1",
    "fsspec==2025.9.0",
    "jinja2==3.1.6",
    "markupsafe==3.0.2",
    "mpmath==1.3.0",
    "networkx==3.5",
    "sympy==1.14.0",
    "typing-extensions==4.15.0",
)

# The sets of wheels by name; each set has a folder of its own.
WHEELS = {"base": BASE_WHEELS, "torch": TORCH_WHEELS}

_WHEEL_SET_BY_RUNTIME = {"litert": "base", "onnxruntime": "base", "torchscript": "torch"}

# The runtimes that can run on an emulated core.
RUNTIMES = tuple(_WHEEL_SET_BY_RUNTIME)


def wheel_set(runtime: str) -> str:
    """Return the set of wheels that a runtime needs.

    Args:
        runtime: The runtime's name.

    Returns:
        A key of `WHEELS`.

    Raises:
        InputError: The runtime does not run on emulated cores.
    """
    if runtime not in _WHEEL_SET_BY_RUNTIME:
        raise InputError(f"the emulated core does not run {runtime}; available runtimes: {', '.join(RUNTIMES)}")
    return _WHEEL_SET_BY_RUNTIME[runtime]


@cache
def _entries() -> dict[str, str]:
    entries: dict[str, str] = {}
    pin = ""
    for line in LOCK.read_text().splitlines(keepends=True):
        if not line.startswith("#"):
            pin = pin if line.startswith(" ") else line.split()[0]
            entries[pin] = entries.get(pin, "") + line
    return entries


def with_hashes(pin: str) -> str:
    """Return a pin as pip reads it in a file of requirements, with the hashes that a downloaded wheel may have.

    Args:
        pin: A value of `WHEELS`.
    """
    return _entries()[pin]
