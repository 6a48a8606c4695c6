"""The command line of the emulator: which core, which caches, which Python, what it finds where."""

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
from edgekit.devices.emulation.setup import Installed

_KIB = 1024
LINE_BYTES = 64


@dataclass(frozen=True)
class GuestCommand:
    """What starts the guest: words, and the whole environment."""

    command: tuple[str, ...]
    variables: Mapping[str, str]


def cache_arguments(spec: EmulationSpec, core: Core, threads: int) -> list[str]:
    """The plugin's cache levels: the core's sizes with the emulation's ways. Without a first level there are none.

    The one thread that is counted stands for one of several. Threads of one layer read the same weights and write rows
    of their own: of a cache that they share each is given neither all nor its equal part but what lies between, the
    size divided by the root of their number, rounded down to whole sets. Of the divisors tried (1, the root, the
    number), this one predicts the published timings of several threads best.
    """
    root = math.sqrt(threads)
    l2_divisor = root if core.l2_scope == "cluster" else 1.0
    levels = (
        (core.l1d_kib, spec.l1d_ways, 1.0),
        (core.l2_kib, spec.l2_ways, l2_divisor),
        (core.l3_kib, spec.l3_ways, root),
    )
    known = []
    for kib, ways, divisor in levels:
        if kib is None:
            break
        set_bytes = ways * LINE_BYTES
        known.append((max(1, int(kib * _KIB / divisor) // set_bytes) * set_bytes, ways))
    return [f"l{index}={size}:{ways}" for index, (size, ways) in enumerate(known, start=1)]


def guest_command(
    installed: Installed,
    wheel_set: str,
    spec: EmulationSpec,
    arguments: Sequence[str],
    *,
    scratch: Path,
    plugin: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> GuestCommand:
    """Python on the emulated core with the runtime's wheels and edgekit; `plugin` are the counting plugin's arguments.

    The guest sees edgekit through links in `scratch`: this host's own packages must not come with it. It compiles what
    it needs of it each time: memory that was used for compiling is laid out otherwise, and counts of small models with
    it.
    """
    library = scratch / "lib"
    seen = library / "edgekit"
    if not seen.exists():
        uncompiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(_version.__file__).parent, seen, ignore=uncompiled, copy_function=os.symlink)
    sysroot = installed.folders.sysroot
    sites = [installed.sites[wheel_set], *(path for name, path in installed.sites.items() if name != wheel_set)]
    words = [str(installed.folders.plugin), *plugin]
    counting = ("-plugin", ",".join(word.replace(",", ",,") for word in words)) if plugin else ()
    command = (
        *(str(tools.QEMU.path()), "-cpu", spec.cpu, "-L", str(sysroot), *counting),
        *(str(sysroot / "usr" / "bin" / f"python{installed.python}"), "-sP", *arguments),
    )
    own = {
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
    return GuestCommand(command, own)
