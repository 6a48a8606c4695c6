"""What stands in the cache folder for the emulation, by content: the same pins, the same source, the same folder.

    emulation/wheels-<key>/    site/ (unpacked arm64 wheels)           one for each set of wheels
    emulation/root-<key>/      root/ (unpacked arm64 Debian packages)  the guest's Python and C library
    emulation/plugin-<key>/    count_plugin.so
    emulation/device-<key>/    root/ with the device's own proc and sys; the rest links into root-<key>

Each holds a record.json of what it was made from, and comes into being in one step: a folder that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import EmulationSpec
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.user_cache import cache_folder
from edgekit.devices.emulation import pins

RECORD = "record.json"
PLUGIN_SOURCE = Path(__file__).with_name("count_plugin.c")
PLUGIN_FLAGS = ("-O2", "-std=c11", "-shared", "-fPIC", "-fvisibility=hidden")


def key(*parts: Any) -> str:
    """Twelve hex digits of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def home() -> Path:
    """The folder of them all."""
    return cache_folder() / "emulation"


@cache
def _plugin_key() -> str:
    return key(sha256_file(PLUGIN_SOURCE), PLUGIN_FLAGS)


@dataclass(frozen=True)
class DeviceFolders:
    """Where the parts of one device's emulation are, or would be."""

    root: Path
    device: Path
    plugin_folder: Path

    @property
    def plugin(self) -> Path:
        """The counting plugin."""
        return self.plugin_folder / "count_plugin.so"

    @property
    def sysroot(self) -> Path:
        """What the guest sees as its root folder."""
        return self.device / "root"


def folders(spec: EmulationSpec, cores: int) -> DeviceFolders:
    """Those of a device with so many cores."""
    root = home() / f"root-{key(pins.LAYOUT, pins.PYTHON_PACKAGE, pins.LIBRARIES)}"
    device = home() / f"device-{key(pins.LAYOUT, root.name, spec.cpuinfo(cores), cores)}"
    return DeviceFolders(root, device, home() / f"plugin-{_plugin_key()}")


def site(wheel_set: str, python: str) -> Path:
    """Where a set of wheels for a version of Python is, or would be."""
    return home() / f"wheels-{key(pins.LAYOUT, pins.WHEELS[wheel_set], python)}"


def record(folder: Path) -> dict[str, Any] | None:
    """What the folder was made from; None when it is not there, or not whole."""
    try:
        data = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
