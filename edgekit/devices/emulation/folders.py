"""The folders of the emulation in the user's cache, named by the digest of what they are made from.

    emulation/wheels-<key>/    site/ (unpacked arm64 wheels)           one for each set of wheels
    emulation/root-<key>/      root/ (unpacked arm64 Debian packages)  the guest's Python and C library
    emulation/plugin-<key>/    count_plugin.so
    emulation/device-<key>/    root/ with the device's own proc and sys; the rest links into root-<key>

Each has a record.json that says what it was made from, and is created atomically: a folder that exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import EmulationSpec
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.user_cache import cache_folder
from edgekit.devices.emulation import pins

# The file, in each folder, that says what it was made from.
RECORD = "record.json"
# The key of the record that holds the digest of the folder's files.
CONTENT = "content_sha256"
PLUGIN_SOURCE = Path(__file__).with_name("count_plugin.c")
PLUGIN_FLAGS = ("-O2", "-std=c11", "-shared", "-fPIC", "-fvisibility=hidden")


def key(*parts: Any) -> str:
    """Return the first twelve hex digits of the sha256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def home() -> Path:
    """Return the folder that contains all others of this module."""
    return cache_folder() / "emulation"


@cache
def _plugin_key() -> str:
    return key(sha256_file(PLUGIN_SOURCE), PLUGIN_FLAGS)


@dataclass(frozen=True)
class DeviceFolders:
    """The folders of one device's emulation, whether they exist or not.

    Attributes:
        root: The unpacked arm64 packages, shared by devices.
        device: The device's own files.
        plugin_folder: The compiled counting plugin, shared by devices.
    """

    root: Path
    device: Path
    plugin_folder: Path

    @property
    def plugin(self) -> Path:
        """The shared library of the counting plugin."""
        return self.plugin_folder / "count_plugin.so"

    @property
    def sysroot(self) -> Path:
        """The folder that is the guest's root folder."""
        return self.device / "root"


def folders(spec: EmulationSpec, cores: int) -> DeviceFolders:
    """Return the folders of a device.

    Args:
        spec: How the device's core is emulated.
        cores: The number of its cores.

    Returns:
        The folders.
    """
    root = home() / f"root-{key(pins.LAYOUT, pins.PYTHON_PACKAGE, pins.LIBRARIES)}"
    device = home() / f"device-{key(pins.LAYOUT, root.name, spec.cpuinfo(cores), cores)}"
    return DeviceFolders(root, device, home() / f"plugin-{_plugin_key()}")


def site(wheel_set: str, python: str) -> Path:
    """Return the folder of a set of wheels.

    Args:
        wheel_set: A set of wheels, as `pins.wheels` takes it.
        python: The version of Python, such as `3.11`.

    Returns:
        The folder, whether it exists or not.
    """
    return home() / f"wheels-{key(pins.LAYOUT, pins.wheels(wheel_set), python)}"


def record(folder: Path) -> dict[str, Any] | None:
    """Read what a folder was made from.

    Args:
        folder: A folder of this module.

    Returns:
        The content of its record.json, or None if the folder does not exist or is incomplete.
    """
    try:
        data = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def content_sha256(folder: Path) -> str:
    """Compute the digest of a folder's files and links.

    Records beside them are left out, since they are written later, and so is the bytecode that the guest's Python
    leaves there.

    Args:
        folder: A folder of this module.

    Returns:
        The sha256 of the sorted paths, each with the digest of its content or with the target of its link.
    """
    lines = []
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if name != "__pycache__"]
        for name in (*names, *files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                lines.append(f"{relative} -> {path.readlink()}")
            elif path.is_file() and not (path.parent == folder and path.suffix == ".json"):
                lines.append(f"{relative} {sha256_file(path)}")
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def has_changed(folder: Path) -> bool:
    """Return whether a folder's files differ from those of its set-up; False if its record has no digest of them."""
    data = record(folder) or {}
    return CONTENT in data and data[CONTENT] != content_sha256(folder)
