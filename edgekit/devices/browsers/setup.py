"""Downloads the pinned npm packages of the browser's runtimes into the user's cache, with npm's own client.

npm asks the registry that this machine is configured with. An archive whose hash is not the pinned one is refused. No
script of a package runs: the archives are unpacked here, and only the files that a page loads are kept.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from edgekit.browser.packages import (
    PACKAGES,
    RECORD,
    REWRITTEN_IMPORTS,
    Package,
    PackageFile,
    PackagesRecord,
    find_packages,
    home,
    packages_folder,
)
from edgekit.browser.program import BROTLI, PLAYWRIGHT
from edgekit.core.environment.atomic_files import sha256_file, staged_folder, write_json
from edgekit.core.environment.requirements import require
from edgekit.core.environment.user_cache import locked
from edgekit.core.errors import StepFailed
from edgekit.devices.emulation.tools import Tool, require_tools, run

NPM = Tool("npm", ("npm",))
# What web servers compress with by default; 11, the highest quality, saves a tenth and takes minutes for these files.
BROTLI_QUALITY = 6


def set_up(say: Callable[[str], None]) -> tuple[str, ...]:
    """Download the packages unless they are there and unchanged; concurrent processes wait for each other.

    Args:
        say: Receives a line about each part.

    Returns:
        The packages that were downloaded; empty if everything existed.

    Raises:
        MissingDependency: npm, Playwright or brotli is not installed.
        StepFailed: A package cannot be downloaded, or its hash is not the pinned one.
        DiskFull: The disk is full.
    """
    if _is_complete():
        return ()
    require((PLAYWRIGHT, BROTLI), "the browser")
    require_tools((NPM,), "the browser")
    with locked(home()):
        if _is_complete():  # another process has set it up meanwhile
            return ()
        with staged_folder(packages_folder()) as staging:
            for package in PACKAGES:
                say(f"downloading {package.name}")
                _fetch(package, staging)
            _rewrite_imports(staging)
            say("compressing the files, to know what a browser transfers")
            files = {path.relative_to(staging).as_posix(): _describe(path) for path in _files(staging)}
            record = PackagesRecord(tuple(package.name for package in PACKAGES), files)
            write_json(staging / RECORD, asdict(record))
    return record.packages


def remove() -> list[Path]:
    """Remove the packages of all versions.

    Returns:
        The folders that were removed.
    """
    if not home().is_dir():
        return []
    with locked(home()):
        folders = sorted(path for path in home().iterdir() if path.is_dir())
        for folder in folders:
            shutil.rmtree(folder)
    return folders


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)


def _is_complete() -> bool:
    """Return whether the packages are there with the hashes of their record."""
    record, folder = find_packages(), packages_folder()
    if record is None:
        return False
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in _files(folder)}
    return hashes == {name: file.sha256 for name, file in record.files.items()}


def _fetch(package: Package, staging: Path) -> None:
    step = f"downloading {package.name}"
    with tempfile.TemporaryDirectory(prefix="npm-", dir=staging) as scratch:
        run([str(NPM.path()), "pack", package.name, "--silent", "--ignore-scripts"], step, folder=Path(scratch))
        archives = list(Path(scratch).glob("*.tgz"))
        if len(archives) != 1:
            raise StepFailed(f"{step}: npm wrote {len(archives)} archives where one was expected", step=step)
        digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if digest != package.integrity:
            raise StepFailed(f"{step}: its SHA-512 is {digest}, and {package.integrity} is pinned", step=step)
        _unpack(archives[0], package, staging, step)


def _unpack(archive: Path, package: Package, staging: Path, step: str) -> None:
    """Write the files of a package that are kept; members are read, so that no link or path of the archive is used."""
    with tarfile.open(archive) as members:
        for inner, name in package.files.items():
            try:
                content = members.extractfile(f"package/{inner}")
            except KeyError:
                content = None
            if content is None:
                raise StepFailed(f"{step}: the archive has no file {inner}", step=step)
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as stream:
                shutil.copyfileobj(content, stream)


def _rewrite_imports(staging: Path) -> None:
    for name, module, replacement in REWRITTEN_IMPORTS:
        path = staging / name
        text = path.read_text(encoding="utf-8")
        if text.count(module) != 1:
            raise StepFailed(f"{name} does not import {module} once", step="rewriting an import")
        path.write_text(text.replace(module, replacement), encoding="utf-8")


def _describe(path: Path) -> PackageFile:
    import brotli

    content = path.read_bytes()
    compressed = len(brotli.compress(content, quality=BROTLI_QUALITY))
    return PackageFile(sha256_file(path), len(content), len(gzip.compress(content, 9, mtime=0)), compressed)
