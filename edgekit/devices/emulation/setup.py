"""Fetching and building what the emulation needs, as an ordinary user, into the cache folder.

The packages come from where this machine's apt and pip are configured to look; nothing of the machine is changed: apt
works with a state of its own in a temporary folder.
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
    PLUGIN_FLAGS,
    PLUGIN_SOURCE,
    RECORD,
    DeviceFolders,
    folders,
    home,
    record,
    site,
)

Say = Callable[[str], None]
_VERSIONED = re.compile(r"python3\.\d+")


@dataclass(frozen=True)
class Installed:
    """What a device's emulation runs with. `made` names what this set-up had to make: nothing, when it all stood."""

    folders: DeviceFolders
    python: str
    sites: dict[str, Path]
    made: tuple[str, ...] = ()


def find(spec: EmulationSpec, cores: int, wheel_sets: Iterable[str]) -> Installed | None:
    """What stands in the cache folder, or None when a part of it is missing."""
    where = folders(spec, cores)
    root = record(where.root)
    if root is None or record(where.device) is None or record(where.plugin_folder) is None:
        return None
    sites = {name: site(name, root["python"]) for name in wheel_sets}
    if any(record(folder) is None for folder in sites.values()):
        return None
    return Installed(where, root["python"], {name: folder / "site" for name, folder in sites.items()})


def set_up(spec: EmulationSpec, cores: int, wheel_sets: Iterable[str], say: Say) -> Installed:
    """Makes what is missing; two processes take turns. Raises MissingDependency, StepFailed, DiskFull."""
    chosen = tuple(wheel_sets)
    found = find(spec, cores, chosen)
    if found is not None:
        return found
    tools.require_tools(tools.ALL, "the emulation")
    tools.require_plugin_api()
    where, made = folders(spec, cores), []

    def make(folder: Path, what: str, build: Callable[[Path], dict[str, Any]]) -> None:
        if record(folder) is None:
            say(what)
            with staged_folder(folder) as staging:
                write_json(staging / RECORD, build(staging))
            made.append(what)

    with locked(home()):
        make(where.plugin_folder, "compiling the counting plugin", _compile)
        make(where.root, "fetching the arm64 root folder", _fetch_root)
        python = str((record(where.root) or {})["python"])
        sites = {name: site(name, python) for name in chosen}
        for name, folder in sites.items():
            make(folder, f"fetching arm64 wheels: {', '.join(pins.WHEELS[name])}", _wheels_into(name, python))
        make(where.device, f"describing the core {spec.cpu}", lambda staging: _describe(staging, where, spec, cores))
    return Installed(where, python, {name: folder / "site" for name, folder in sites.items()}, tuple(made))


def remove(spec: EmulationSpec, cores: int) -> list[Path]:
    """Removes the device's folder, and all the rest with the last device; what was removed."""
    where, removed = folders(spec, cores), []
    if not home().is_dir():
        return []
    with locked(home()):
        if where.device.exists():
            removed.append(where.device)
            shutil.rmtree(where.device)
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
    """apt-get for arm64 with lists, status and cache of its own; sources and keys are the machine's."""

    def __init__(self, folder: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial", "state"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        self.archives = folder / "cache" / "archives"
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures::": "arm64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # the sandbox's user cannot write here; other users have no sandbox
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
            "Dir::State": str(folder / "state"),
            "Dir::State::lists": str(folder / "lists"),
            "Dir::State::status": str(folder / "status"),
            "Dir::Cache": str(folder / "cache"),
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def __call__(self, program: str, *arguments: str) -> str:
        return tools.run([program, *self._options, *arguments], "fetching the arm64 root folder")


def _fetch_root(staging: Path) -> dict[str, Any]:
    root = staging / "root"
    root.mkdir()
    with tempfile.TemporaryDirectory(prefix="apt-", dir=staging) as scratch:
        apt = _PrivateApt(Path(scratch))
        apt("apt-get", "-qq", "update")
        version = _VERSIONED.search(apt("apt-cache", "depends", pins.PYTHON_PACKAGE))
        if version is None:
            raise StepFailed("this machine's apt sources offer no Python for arm64", step="fetching")
        wanted = (f"{version[0]}-minimal", f"lib{version[0]}-stdlib", *pins.LIBRARIES)
        apt("apt-get", "-qq", "-y", "--download-only", "install", *wanted)
        archives = sorted(apt.archives.glob("*.deb"))
        for archive in archives:
            tools.run([str(tools.UNPACKER.path()), "-x", str(archive), str(root)], f"unpacking {archive.name}")
        packages = {archive.name: sha256_file(archive) for archive in archives}
    _complete(root)
    return {"python": version[0].removeprefix("python"), "packages": packages}


def _complete(root: Path) -> None:
    """What the packages leave to others: the links of a merged /usr; and their manuals are not needed."""
    for name in ("lib", "bin", "sbin"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    shutil.rmtree(root / "usr" / "share", ignore_errors=True)


def _wheels_into(wheel_set: str, python: str) -> Callable[[Path], dict[str, Any]]:
    def build(staging: Path) -> dict[str, Any]:
        if importlib.util.find_spec("pip") is None:
            raise MissingDependency("fetching arm64 wheels needs pip; install it with: python -m ensurepip")
        with tempfile.TemporaryDirectory(prefix="pip-", dir=staging) as scratch:
            _download(wheel_set, python, Path(scratch))
            wheels = sorted(Path(scratch).glob("*.whl"))
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(staging / "site")
            return {"pins": pins.WHEELS[wheel_set], "wheels": {wheel.name: sha256_file(wheel) for wheel in wheels}}

    return build


def _download(wheel_set: str, python: str, folder: Path) -> None:
    tag = "cp" + python.replace(".", "")
    # pip takes the tags as they are given, and no older ones along with them. Debian 12 has the C library 2.36.
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]
    tools.run(
        [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--dest", str(folder), "--no-deps", "--only-binary=:all:"),
            *("--implementation", "cp", "--python-version", python, "--abi", tag, "--abi", "abi3", "--abi", "none"),
            *(word for platform in platforms for word in ("--platform", platform)),
            *pins.WHEELS[wheel_set],
        ],
        "fetching arm64 wheels",
    )


def _describe(staging: Path, where: DeviceFolders, spec: EmulationSpec, cores: int) -> dict[str, Any]:
    """The guest's root folder: the shared one by links, with a proc and a sys that show the device's cores."""
    sysroot = staging / "root"
    sysroot.mkdir()
    for entry in sorted((where.root / "root").iterdir()):
        (sysroot / entry.name).symlink_to(Path(os.pardir, os.pardir, where.root.name, "root", entry.name))
    (sysroot / "proc").mkdir()
    (sysroot / "proc" / "cpuinfo").write_text(spec.cpuinfo(cores))
    listed = sysroot / "sys" / "devices" / "system" / "cpu"
    listed.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (listed / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n")
    return {"cpu": spec.cpu, "cores": cores, "root": where.root.name}
