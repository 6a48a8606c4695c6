"""Builds the command line of the emulator: core, caches, Python and its module path."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import _version
from edgekit.config.device_profile import Core, EmulationSpec
from edgekit.devices.emulation import tools
from edgekit.devices.emulation.setup import Installation

_KIB = 1024
# Bytes of a cache line, as the counting plugin simulates it.
LINE_BYTES = 64


@dataclass(frozen=True)
class GuestCommand:
    """The command that starts the guest.

    Attributes:
        command: The program and its arguments.
        variables: The complete environment: nothing is inherited from this host.
    """

    command: tuple[str, ...]
    variables: Mapping[str, str]


def cache_arguments(spec: EmulationSpec, core: Core, threads: int) -> list[str]:
    """Return the counting plugin's arguments for the cache levels.

    One counted thread stands for each of `threads` threads. Threads that compute one layer read the same weights but
    write different rows, so that each has neither the whole of a shared cache nor only its equal share: its size is
    divided by the square root of the number of threads and rounded down to whole sets. Of the divisors 1, the root and
    the number itself, the root predicts the published timings of several threads best.

    Args:
        spec: The associativity of the emulated caches.
        core: The core, with the cache sizes.
        threads: The number of threads.

    Returns:
        `l<level>=<bytes>:<ways>` for each level up to the first one of unknown size.
    """
    root = math.sqrt(threads)
    l2_divisor = root if core.l2_scope == "cluster" else 1.0
    levels = (
        (core.l1d_kib, spec.l1d_ways, 1.0),
        (core.l2_kib, spec.l2_ways, l2_divisor),
        (core.l3_kib, spec.l3_ways, root),
    )
    sizes = []
    for kib, ways, divisor in levels:
        if kib is None:
            break
        set_bytes = ways * LINE_BYTES
        sizes.append((max(1, int(kib * _KIB / divisor) // set_bytes) * set_bytes, ways))
    return [f"l{index}={size}:{ways}" for index, (size, ways) in enumerate(sizes, start=1)]


def further_levels(spec: EmulationSpec, core: Core, threads: int) -> str:
    """Return the counting plugin's argument for the levels behind the first one, for another number of threads.

    Args:
        spec: The associativity of the emulated caches.
        core: The core, with the cache sizes.
        threads: The number of threads.

    Returns:
        `more=<bytes>:<ways>`, with `:<bytes>:<ways>` for a third level.
    """
    levels = [argument.partition("=")[2] for argument in cache_arguments(spec, core, threads)[1:]]
    return f"more={':'.join(levels)}"


def guest_command(
    installed: Installation,
    wheel_set: str,
    spec: EmulationSpec,
    arguments: Sequence[str],
    *,
    scratch: Path,
    plugin: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> GuestCommand:
    """Build the command that runs Python on the emulated core, with a runtime's wheels and edgekit on the module path.

    Args:
        installed: The folders of the device's emulation.
        wheel_set: The set of wheels that comes first on the module path.
        spec: The emulated core.
        arguments: The arguments of Python.
        scratch: The guest's scratch folder, which also receives links to edgekit's files.
        plugin: The arguments of the counting plugin; empty to run without it.
        variables: Additional environment variables.

    Returns:
        The command and its environment.
    """
    library = scratch / "lib"
    guest_edgekit = library / "edgekit"
    if not guest_edgekit.exists():
        # Links to edgekit alone, since this host's other packages must not be importable in the guest. Without compiled
        # files the guest always compiles: compiling changes its memory layout, and thereby counts of small models.
        uncompiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(_version.__file__).parent, guest_edgekit, ignore=uncompiled, copy_function=os.symlink)
    sysroot = installed.folders.sysroot
    sites = [installed.sites[wheel_set], *(path for name, path in installed.sites.items() if name != wheel_set)]
    words = [str(installed.folders.plugin), *plugin]
    # QEMU separates a plugin's arguments by commas, and reads two commas as one literal comma.
    counting = ("-plugin", ",".join(word.replace(",", ",,") for word in words)) if plugin else ()
    command = (
        *(str(tools.QEMU.path()), "-cpu", spec.cpu, "-L", str(sysroot), *counting),
        *(str(sysroot / "usr" / "bin" / f"python{installed.python}"), "-sP", *arguments),
    )
    environment = {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONHOME": str(sysroot / "usr"),
        "PYTHONPATH": ":".join(str(path) for path in (library, *sites)),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **(variables or {}),
    }
    return GuestCommand(command, environment)
