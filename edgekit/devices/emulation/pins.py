"""What the arm64 root folder is made of. Wheels are pinned: what a figure was counted with must not change unseen.

The Debian packages are those that the machine's own distribution offers for arm64, with what they depend on; their
versions and hashes are written into the folder's record.
"""

from __future__ import annotations

from edgekit.core.errors import InputError

LAYOUT = 1
"""Raised whenever the same pins give other folders."""

PYTHON_PACKAGE = "python3-minimal"
"""Depends on the versioned package of the distribution's Python, such as python3.11-minimal."""

LIBRARIES = ("libstdc++6", "libgcc-s1", "zlib1g")

BASE_WHEELS = ("ai-edge-litert==2.3.0", "numpy==2.3.5", "onnxruntime==1.32.0")
"""The two runtimes import nothing else, unlike what their metadata asks for."""

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

WHEELS = {"base": BASE_WHEELS, "torch": TORCH_WHEELS}
"""Sets of wheels, each in a folder of its own."""

_SET_OF = {"litert": "base", "onnxruntime": "base", "torchscript": "torch"}

RUNTIMES = tuple(_SET_OF)
"""The runtimes that can run on the emulated core."""


def wheel_set(runtime: str) -> str:
    """Which wheels a runtime needs. Raises InputError for one that the emulation does not run."""
    if runtime not in _SET_OF:
        raise InputError(f"the runtime {runtime} does not run on the emulated core; these do: {', '.join(RUNTIMES)}")
    return _SET_OF[runtime]
