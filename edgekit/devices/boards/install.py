"""Installs runtimes on a board into a folder of edgekit's own, from wheels that are fetched here.

The board needs neither pip nor a compiler nor a way to the package index: this host's pip selects wheels for its
Python, C library and architecture, and they are sent by their hash. PYTHONPATH names the folder; nothing else changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.requirements import NUMPY
from edgekit.core.errors import InputError, MissingDependency, StepFailed
from edgekit.devices.boards.board import ENVIRONMENT_PREFIX, Board, pin
from edgekit.devices.boards.machine import Machine
from edgekit.devices.emulation import tools

# What is installed where the user names nothing: the runtimes of the most common formats, 60 MB together.
DEFAULT_RUNTIMES = ("litert", "onnxruntime")
# What these distributions declare and the runner never imports: it would be most of what is sent.
_WITHOUT_DEPENDENCIES = ("ai-edge-litert", "onnxruntime")
# The architectures of manylinux wheels, by what uname calls them.
_ARCHITECTURES = {"aarch64": "aarch64", "x86_64": "x86_64", "armv7l": "armv7l"}
_GLIBC = re.compile(r"glibc (\d+)\.(\d+)")
# The oldest C library whose wheels are looked for; manylinux2014 is 2.17.
_OLDEST_MINOR = 17
_DATA = re.compile(r"[^/]+\.data/(?:purelib|platlib)/(.+)")
# Moving a wheel to a board on a slow line takes minutes.
_PART_S = 120.0
_UNPACK_S = 600.0


@dataclass(frozen=True)
class BoardEnvironment:
    """What was installed on a board.

    Attributes:
        folder: The name of the folder in the board's store.
        wheels: The names of the wheels, sorted.
        sent_bytes: The number of bytes that were sent; 0 if the board had everything.
        added: Whether the folder is new.
    """

    folder: str
    wheels: tuple[str, ...]
    sent_bytes: int
    added: bool


def install(board: Board, runtimes: Sequence[str], wheels: Path | None, say: Callable[[str], None]) -> BoardEnvironment:
    """Install runtimes on a board; what an earlier call has installed is replaced.

    Args:
        board: The board.
        runtimes: The names of the runtimes.
        wheels: A folder of wheels to take instead of the package index's.
        say: Receives a line about each part.

    Returns:
        What is installed now.

    Raises:
        InputError: A runtime is unknown, the folder has no wheels, or the board's system has no wheels.
        MissingDependency: pip is not installed here, or the board's Python is too old.
        StepError: A wheel cannot be fetched, or the board has no space left or failed.
    """
    requirements = [NUMPY]
    for name in runtimes:
        requirements += RUNTIMES.load(name).requires
    board.check_python()
    machine = board.machine()
    pins = list(dict.fromkeys(map(pin, requirements)))
    with tempfile.TemporaryDirectory(prefix="edgekit-wheels-") as folder:
        if wheels is not None and not any(wheels.glob("*.whl")):
            raise InputError(f"{wheels}: there are no wheels in this folder")
        python = ".".join(map(str, machine.python[:2]))
        say(f"selecting wheels for {machine.architecture}, Python {python}: {', '.join(pins)}")
        _fetch(pins, machine, Path(folder), wheels)
        files = sorted(Path(folder).glob("*.whl"))
        archives = {path.name: _as_site(path, Path(folder, "site")) for path in files}
        hashes = {name: sha256_file(path) for name, path in archives.items()}
        digest = hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()
        name = f"{ENVIRONMENT_PREFIX}{digest[:16]}"
        before = board.environments()
        say(f"sending {len(files)} wheels")
        sent = 0
        if name not in before:
            needed = {hashes[wheel]: path for wheel, path in archives.items()}
            sent = board.connection.upload(needed, step="install", timeout_s=_PART_S)
            request = {"op": "make", "folder": name, "archives": list(needed), "record": {"wheels": sorted(hashes)}}
            board.connection.call(request, step="install", timeout_s=_UNPACK_S)
    old = [folder for folder in before if folder != name]
    board.connection.call({"op": "drop", "folders": old}, step="install", timeout_s=_UNPACK_S)
    board.forget()
    versions = board.modules(requirements)
    missing = [item.distribution for item in requirements if versions[item.module] is None]
    if missing:
        raise StepFailed(
            f"install: {board.name} does not find {', '.join(missing)} in what was installed", step="install"
        )
    return BoardEnvironment(name, tuple(sorted(hashes)), sent, name not in before)


def uninstall(board: Board) -> tuple[str, ...]:
    """Remove everything that edgekit keeps on a board: runtimes, code and files.

    Args:
        board: The board.

    Returns:
        The folders that were removed.

    Raises:
        StepError: The board does not answer, or a folder cannot be removed.
    """
    reply = board.connection.call({"op": "drop", "folders": None}, step="remove", timeout_s=_UNPACK_S)
    board.forget()
    return tuple(map(str, reply.values["removed"]))


def platforms(machine: Machine) -> tuple[str, ...]:
    """Return the platform tags of the wheels that a board runs, the newest first.

    Args:
        machine: The board.

    Raises:
        InputError: There are no such wheels: the C library is not glibc, or the architecture is another one.
    """
    match, architecture = _GLIBC.fullmatch(machine.libc), _ARCHITECTURES.get(machine.architecture)
    if match is None or architecture is None:
        system = f"{machine.architecture} with {machine.libc or 'an unknown C library'}"
        raise InputError(
            f"there are no wheels of runtimes for {system}; supported: {', '.join(_ARCHITECTURES)} with glibc"
        )
    newest = int(match[2])
    tags = [f"manylinux_2_{minor}_{architecture}" for minor in range(newest, _OLDEST_MINOR - 1, -1)]
    return (*tags, f"manylinux2014_{architecture}")


def _fetch(pins: Sequence[str], machine: Machine, folder: Path, wheels: Path | None) -> None:
    """Let pip select the wheels for the board and put them into a folder."""
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency("installing runtimes on a board needs pip here; install it with: python -m ensurepip")
    python = f"{machine.python[0]}.{machine.python[1]}"
    tags = [word for tag in platforms(machine) for word in ("--platform", tag)]
    source = ["--no-index", "--find-links", str(wheels)] if wheels is not None else []
    alone = [text for text in pins if text.partition("==")[0] in _WITHOUT_DEPENDENCIES]
    for group, options in ((alone, ["--no-deps"]), ([text for text in pins if text not in alone], [])):
        if group:
            tools.run(
                [
                    *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                    *("--dest", str(folder), "--only-binary=:all:", "--implementation", "cp"),
                    *(
                        "--python-version",
                        python,
                        "--abi",
                        f"cp{python.replace('.', '')}",
                        "--abi",
                        "abi3",
                        "--abi",
                        "none",
                    ),
                    *(*tags, *source, *options, *group),
                ],
                f"selecting wheels for {machine.architecture}",
            )


def _as_site(wheel: Path, folder: Path) -> Path:
    """Return an archive whose content is what the wheel puts on the module path.

    A wheel's `.data/purelib` and `.data/platlib` belong beside its packages; its scripts are not needed.
    """
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if not any(".data/" in name for name in names):
            return wheel
        moved = folder / wheel.name
        with zipfile.ZipFile(moved, "w", zipfile.ZIP_DEFLATED) as target:
            for entry in archive.infolist():
                match = _DATA.fullmatch(entry.filename)
                if match is not None or ".data/" not in entry.filename:
                    name = match[1] if match is not None else entry.filename
                    target.writestr(zipfile.ZipInfo(name, entry.date_time), archive.read(entry))
    return moved
