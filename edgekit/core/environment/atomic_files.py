"""Writing so that a killed process leaves nothing half done, and reading so that a bad file is one sentence."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.core.errors import DiskFull, EdgekitError, InputError

STAGING_PREFIX = ".edgekit-"
_umask_lock = threading.Lock()


def os_error(error: OSError, path: Path) -> EdgekitError:
    """The sentence for an OSError met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the disk that holds {path}; nothing was changed there", step="write")
    reason = (error.strerror or str(error)).lower()
    if error.filename is not None and not Path(str(error.filename)).is_relative_to(path.parent):
        return InputError(f"cannot read {error.filename}: {reason}")
    return InputError(f"cannot write {path}: {reason}")


@contextmanager
def mapped_write_errors(path: Path) -> Iterator[None]:
    """Maps the OSErrors of the block to InputError (not writable) and DiskFull."""
    try:
        yield
    except OSError as error:
        raise os_error(error, path) from error


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its place when the block ends without an error.

    Whatever stood at `final` stays until the new folder is complete. On an error, or an interrupt, the temporary folder
    is removed and `final` is as it was. Raises InputError when the parent cannot be written, DiskFull when it is full.
    """
    made = [folder for folder in final.parents if not folder.exists()]
    with mapped_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_files(final.parent)
        staging = Path(tempfile.mkdtemp(prefix=_own_prefix(), dir=final.parent))
        staging.chmod(0o777 & ~_umask())
    try:
        with mapped_write_errors(final):
            yield staging
            _replace_folder(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # something stands in it
                folder.rmdir()


@cache
def _own_host() -> str:
    """Hosts, and containers, that share a folder number their processes each for themselves."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _own_prefix() -> str:
    return f"{STAGING_PREFIX}{_own_host()}-{os.getpid()}-"


def remove_stale_files(folder: Path) -> None:
    """Removes what processes of this host that were killed have left in the folder: temporary names carry their
    maker's host and process."""
    own = f"{STAGING_PREFIX}{_own_host()}-"
    for path in folder.glob(f"{own}*-*"):
        pid = path.name.removeprefix(own).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _umask() -> int:
    with _umask_lock:  # it can only be read by setting it, and it is all threads'
        current = os.umask(0o077)
        os.umask(current)
    return current


def _replace_folder(staging: Path, final: Path) -> None:
    if not final.exists():
        staging.rename(final)
        return
    old = Path(tempfile.mkdtemp(prefix=_own_prefix(), dir=final.parent))
    try:
        final.rename(old / "old")
        try:
            staging.rename(final)
        except BaseException:
            (old / "old").rename(final)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replaces the file in one step. Raises InputError or DiskFull; the old file then stands as it was."""
    with mapped_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_own_prefix(), dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def to_json(data: Any) -> str:
    """JSON with stable key order and no NaN (which JSON does not have: use null)."""
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, data: Any) -> None:
    """`to_json` into the file, in one step."""
    write_text(path, to_json(data))


def read_bytes(path: Path, what: str) -> bytes:
    """The content. Raises InputError when the file is missing, unreadable or empty."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what}: {(error.strerror or str(error)).lower()}") from error
    if not content:
        raise InputError(f"{path}: this {what} is empty")
    return content


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in the file. Raises InputError when it is missing, empty, truncated or something else."""
    content = read_bytes(path, what)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this {what} is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: this {what} holds a JSON {type(data).__name__} where an object belongs")
    return data


def sha256_file(path: Path) -> str:
    """The hex digest of the file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_path(path: Path) -> str:
    """The hex digest of a file's content, or of a folder's: the names and digests of all files in it."""
    if path.is_file():
        return sha256_file(path)
    hasher = hashlib.sha256()
    for item in sorted(path.rglob("*")):
        if item.is_file():
            hasher.update(f"{item.relative_to(path).as_posix()} {sha256_file(item)}\n".encode())
    return hasher.hexdigest()


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    return sum(item.stat().st_size for item in ([path] if path.is_file() else path.rglob("*")) if item.is_file())
