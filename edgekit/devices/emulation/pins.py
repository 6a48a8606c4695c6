"""The packages of the emulated arm64 system; wheels are pinned, so that counts do not change unnoticed.

`guest_wheels.lock` holds the hashes of each pin, of the files for every version of Python; `make lock` writes it. The
Debian packages and their dependencies are those that this machine's distribution offers for arm64. Their versions and
hashes are written to the folder's record.
"""

from __future__ import annotations

import re
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

# The package of each runtime that can be exchanged for another version: it needs no other package in another version.
RUNTIME_BY_PACKAGE = {"ai-edge-litert": "litert", "onnxruntime": "onnxruntime"}

# A package and one version, as pip writes it; neither holds what pip would read as an option, a URL or a marker.
_REQUIREMENT = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)==([0-9][0-9A-Za-z.!+]{0,60})")

# Between the name of a set of wheels and the package that it has in another version.
_WITH = " with "

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


def runtime_of(requirement: str) -> str:
    """Return the runtime that a package with a version provides.

    Args:
        requirement: Such as `onnxruntime==1.31.0`.

    Returns:
        The runtime's name.

    Raises:
        InputError: It is no package with one version, or its version cannot be chosen.
    """
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise InputError(f"'{requirement}' is not a package with one version, such as onnxruntime==1.31.0")
    if match[1] not in RUNTIME_BY_PACKAGE:
        packages = ", ".join(RUNTIME_BY_PACKAGE)
        raise InputError(f"the version of {match[1]} on emulated cores cannot be chosen; only that of: {packages}")
    return RUNTIME_BY_PACKAGE[match[1]]


def pinned(runtime: str) -> str | None:
    """Return the package and version that a runtime has on emulated cores; None if its version cannot be chosen.

    Args:
        runtime: The runtime's name.
    """
    packages = [package for package, name in RUNTIME_BY_PACKAGE.items() if name == runtime]
    return next((pin for pin in BASE_WHEELS if pin.partition("==")[0] in packages), None)


def wheel_set_with(requirement: str) -> str:
    """Return the set of wheels that has a package of the base set in another version.

    Args:
        requirement: A package and its version, which `runtime_of` accepts.

    Returns:
        What `wheels` takes.
    """
    return "base" if requirement in BASE_WHEELS else f"base{_WITH}{requirement}"


def wheels(wheel_set: str) -> tuple[str, ...]:
    """Return the packages of a set of wheels, each with its version.

    Args:
        wheel_set: A key of `WHEELS`, or a result of `wheel_set_with`.
    """
    name, _, requirement = wheel_set.partition(_WITH)
    package = requirement.partition("==")[0]
    return tuple(requirement if package and pin.partition("==")[0] == package else pin for pin in WHEELS[name])


@cache
def _entries() -> dict[str, str]:
    entries: dict[str, str] = {}
    pin = ""
    for line in LOCK.read_text().splitlines(keepends=True):
        if not line.startswith("#"):
            pin = pin if line.startswith(" ") else line.split()[0]
            entries[pin] = entries.get(pin, "") + line
    return entries


def has_hashes(pin: str) -> bool:
    """Return whether the hashes of a package's wheels are pinned; those of a version that a user chose are not.

    Args:
        pin: A package and its version.
    """
    return pin in _entries()


def with_hashes(pin: str) -> str:
    """Return a pin as pip reads it in a file of requirements, with the hashes that a downloaded wheel may have.

    Args:
        pin: A value of `wheels`.
    """
    return _entries().get(pin, f"{pin}\n")
