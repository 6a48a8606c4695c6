"""Downloads and builds the parts of an emulation into the user's cache folder, without root permissions.

Packages are downloaded from the sources that this machine's apt and pip are configured with. apt checks signatures, and
pip refuses a wheel whose hash is not pinned. The machine itself is not
changed: apt works with a separate state in a temporary folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import EmulationSpec
from edgekit.core.environment.atomic_files import sha256_file, staged_folder, write_json
from edgekit.core.environment.user_cache import locked
from edgekit.core.errors import MissingDependency, StepFailed
from edgekit.devices.emulation import pins, tools
from edgekit.devices.emulation.folders import (
    CONTENT,
    PLUGIN_FLAGS,
    PLUGIN_SOURCE,
    RECORD,
    DeviceFolders,
    content_sha256,
    folders,
    has_changed,
    home,
    record,
    site,
)

Say = Callable[[str], None]
# The versioned package that python3-minimal depends on.
_PYTHON_VERSION = re.compile(r"python3\.\d+")


@dataclass(frozen=True)
class Installation:
    """The parts of a device's emulation.

    Attributes:
        folders: The device's folders.
        python: The guest's Python version, such as `3.11`.
        sites: The folder of each set of wheels, by name.
        added: What this set-up had to download or build; empty if everything existed.
    """

    folders: DeviceFolders
    python: str
    sites: dict[str, Path]
    added: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Path, ...]:
        """The folders that the set-up made."""
        sites = (path.parent for path in self.sites.values())
        return (self.folders.root, self.folders.plugin_folder, *sites, self.folders.device)


def find(spec: EmulationSpec, cores: int, wheel_sets: Iterable[str]) -> Installation | None:
    """Find the parts of an emulation in the cache folder.

    Args:
        spec: How the device's core is emulated.
        cores: The number of its cores.
        wheel_sets: The sets of wheels that are needed.

    Returns:
        The parts, or None if one of them is missing.
    """
    device_folders = folders(spec, cores)
    root = record(device_folders.root)
    if root is None or record(device_folders.device) is None or record(device_folders.plugin_folder) is None:
        return None
    sites = {name: site(name, root["python"]) for name in wheel_sets}
    if any(record(folder) is None for folder in sites.values()):
        return None
    return Installation(device_folders, root["python"], {name: folder / "site" for name, folder in sites.items()})


def set_up(spec: EmulationSpec, cores: int, wheel_sets: Iterable[str], say: Say) -> Installation:
    """Download and build the missing parts of an emulation; concurrent processes wait for each other.

    A part whose files have changed since its set-up is made again.

    Args:
        spec: How the device's core is emulated.
        cores: The number of its cores.
        wheel_sets: The sets of wheels that are needed.
        say: Receives a line about each part.

    Returns:
        The parts.

    Raises:
        MissingDependency: A program that the set-up needs is not installed.
        StepFailed: A part cannot be downloaded or built.
        DiskFull: The disk is full.
    """
    names = tuple(wheel_sets)
    installed = find(spec, cores, names)
    if installed is not None and not any(map(has_changed, installed.parts)):
        return installed
    tools.require_tools(tools.ALL, "the emulation")
    tools.require_plugin_api()
    device_folders, built = folders(spec, cores), []

    def make(folder: Path, what: str, build: Callable[[Path], dict[str, Any]]) -> None:
        changed = has_changed(folder)
        if changed or record(folder) is None:
            say(f"{what} again, since files in {folder.name} have changed" if changed else what)
            with staged_folder(folder) as staging:
                data = build(staging)
                write_json(staging / RECORD, {**data, CONTENT: content_sha256(staging)})
            built.append(what)

    with locked(home()):
        make(device_folders.plugin_folder, "compiling the counting plugin", _compile)
        make(device_folders.root, "downloading the arm64 root folder", _fetch_root)
        python = str((record(device_folders.root) or {})["python"])
        sites = {name: site(name, python) for name in names}
        for name, folder in sites.items():
            make(folder, f"downloading arm64 wheels: {', '.join(pins.wheels(name))}", _wheels_into(name, python, say))
        make(
            device_folders.device,
            f"describing the core {spec.cpu}",
            lambda staging: _describe(staging, device_folders, spec, cores),
        )
    return Installation(device_folders, python, {name: folder / "site" for name, folder in sites.items()}, tuple(built))


def remove(spec: EmulationSpec, cores: int) -> list[Path]:
    """Remove a device's folder; with the last device, remove the shared parts as well.

    Args:
        spec: How the device's core is emulated.
        cores: The number of its cores.

    Returns:
        The folders that were removed.
    """
    device_folders, removed = folders(spec, cores), []
    if not home().is_dir():
        return []
    with locked(home()):
        if device_folders.device.exists():
            removed.append(device_folders.device)
            shutil.rmtree(device_folders.device)
        if not any(home().glob("device-*")):
            for folder in [path for path in sorted(home().iterdir()) if path.is_dir()]:
                removed.append(folder)
                shutil.rmtree(folder)
    return removed


def _compile(staging: Path) -> dict[str, Any]:
    built = staging / "count_plugin.so"
    command = [str(tools.COMPILER.path()), *PLUGIN_FLAGS, "-o", str(built), str(PLUGIN_SOURCE)]
    tools.run(command, "compiling the counting plugin")
    return {"source_sha256": sha256_file(PLUGIN_SOURCE), "sha256": sha256_file(built)}


class _PrivateApt:
    """apt-get for arm64 with separate lists, status and cache; sources and keys are those of this machine."""

    def __init__(self, folder: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial", "state"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        self.archives = folder / "cache" / "archives"
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures::": "arm64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # apt's sandbox user cannot write to this folder; only root has a sandbox
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
            "Dir::State": str(folder / "state"),
            "Dir::State::lists": str(folder / "lists"),
            "Dir::State::status": str(folder / "status"),
            "Dir::Cache": str(folder / "cache"),
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def __call__(self, program: str, *arguments: str) -> str:
        return tools.run([program, *self._options, *arguments], "downloading the arm64 root folder")


def _fetch_root(staging: Path) -> dict[str, Any]:
    root = staging / "root"
    root.mkdir()
    with tempfile.TemporaryDirectory(prefix="apt-", dir=staging) as scratch:
        apt = _PrivateApt(Path(scratch))
        apt("apt-get", "-qq", "update")
        version = _PYTHON_VERSION.search(apt("apt-cache", "depends", pins.PYTHON_PACKAGE))
        if version is None:
            raise StepFailed("the apt sources of this machine have no Python for arm64", step="downloading")
        packages_needed = (f"{version[0]}-minimal", f"lib{version[0]}-stdlib", *pins.LIBRARIES)
        apt("apt-get", "-qq", "-y", "--download-only", "install", *packages_needed)
        archives = sorted(apt.archives.glob("*.deb"))
        for archive in archives:
            tools.run([str(tools.UNPACKER.path()), "-x", str(archive), str(root)], f"unpacking {archive.name}")
        packages = {archive.name: sha256_file(archive) for archive in archives}
    _complete(root)
    return {"python": version[0].removeprefix("python"), "packages": packages}


def _complete(root: Path) -> None:
    """Add the links of a merged /usr, which no package contains, and remove the manuals."""
    for name in ("lib", "bin", "sbin"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    shutil.rmtree(root / "usr" / "share", ignore_errors=True)


def _wheels_into(wheel_set: str, python: str, say: Say) -> Callable[[Path], dict[str, Any]]:
    def build(staging: Path) -> dict[str, Any]:
        if importlib.util.find_spec("pip") is None:
            raise MissingDependency("downloading arm64 wheels needs pip; install it with: python -m ensurepip")
        with tempfile.TemporaryDirectory(prefix="pip-", dir=staging) as scratch:
            for number, pin in enumerate(pins.wheels(wheel_set), 1):
                say(f"downloading {pin}, {number} of {len(pins.wheels(wheel_set))}")
                _download(pin, python, Path(scratch))
            wheels = sorted(Path(scratch).glob("*.whl"))
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(staging / "site")
            return {"pins": pins.wheels(wheel_set), "wheels": {wheel.name: sha256_file(wheel) for wheel in wheels}}

    return build


def _download(pin: str, python: str, folder: Path) -> None:
    requirement = folder / "requirement.txt"
    requirement.write_text(pins.with_hashes(pin))
    tag = "cp" + python.replace(".", "")
    # pip download does not add older platform tags to the given ones. The newest is that of Debian 12, glibc 2.36.
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]
    tools.run(
        [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--dest", str(folder), "--no-deps", "--only-binary=:all:"),
            # A version that a user chose has no pinned hash: the index is trusted, and the record holds the hash.
            *(("--require-hashes",) if pins.has_hashes(pin) else ()),
            *("--implementation", "cp", "--python-version", python, "--abi", tag, "--abi", "abi3", "--abi", "none"),
            *(word for platform in platforms for word in ("--platform", platform)),
            *("--requirement", str(requirement)),
        ],
        f"downloading {pin} for arm64",
    )


def _describe(staging: Path, device_folders: DeviceFolders, spec: EmulationSpec, cores: int) -> dict[str, Any]:
    """Create the guest's root folder: links into the shared one, and a /proc and /sys that show the device's cores."""
    sysroot = staging / "root"
    sysroot.mkdir()
    for entry in sorted((device_folders.root / "root").iterdir()):
        (sysroot / entry.name).symlink_to(Path(os.pardir, os.pardir, device_folders.root.name, "root", entry.name))
    (sysroot / "proc").mkdir()
    (sysroot / "proc" / "cpuinfo").write_text(spec.cpuinfo(cores))
    cpu_folder = sysroot / "sys" / "devices" / "system" / "cpu"
    cpu_folder.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (cpu_folder / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n")
    return {"cpu": spec.cpu, "cores": cores, "root": device_folders.root.name}
