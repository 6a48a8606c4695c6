"""Atomic writes, so that a killed process leaves no partial files, and reads that report a bad file in one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.core.environment.bounded_files import check_size, open_file
from edgekit.core.environment.contained_files import copy_plain_file
from edgekit.core.environment.process_identity import has_ended, own_process
from edgekit.core.errors import DiskFull, EdgekitError, InputError, StepFailed

# Of temporary files and folders. The dot hides them from listings and from the search for artifacts.
STAGING_PREFIX = ".edgekit-"

# Only one thread at a time may change the umask of the process to read it.
_umask_lock = threading.Lock()


def os_error(error: OSError, path: Path) -> EdgekitError:
    """Convert an OSError that was raised while `path` was written.

    Args:
        error: The error.
        path: The file or folder that was to be written.

    Returns:
        DiskFull when there is no space, else an InputError that says which file cannot be read or written.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the disk that holds {path}; nothing was changed there", step="write")
    reason = (error.strerror or str(error)).lower()
    # The error is about another file: one that was read to write this one.
    if error.filename is not None and not Path(str(error.filename)).is_relative_to(path.parent):
        return InputError(f"cannot read {error.filename}: {reason}")
    return InputError(f"cannot write {path}: {reason}")


@contextmanager
def mapped_write_errors(path: Path) -> Iterator[None]:
    """Convert an OSError of the block.

    Args:
        path: The file or folder that the block writes.

    Raises:
        InputError: The path cannot be written.
        DiskFull: There is no space left.
    """
    try:
        yield
    except OSError as error:
        raise os_error(error, path) from error


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Create a temporary folder beside `final`, which replaces `final` when the block ends without an error.

    An existing folder stays in place until the new one is complete. On an error, or an interrupt, the temporary folder
    and parents that were created for it are removed, and `final` is unchanged.

    Args:
        final: The folder to write.

    Yields:
        The temporary folder.

    Raises:
        InputError: The parent folder cannot be written.
        DiskFull: There is no space left.
    """
    created_parents = [folder for folder in final.parents if not folder.exists()]
    with mapped_write_errors(final):
        if final.exists() and not final.is_dir():  # a device would be moved away, not only a file
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(final))
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_files(final.parent)
        staging = Path(tempfile.mkdtemp(prefix=_temporary_prefix(), dir=final.parent))
        # mkdtemp() allows only the owner; a folder has the permissions of an ordinary mkdir().
        staging.chmod(0o777 & ~_umask())
    try:
        with mapped_write_errors(final):
            yield staging
            _replace_folder(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in created_parents:
            with contextlib.suppress(OSError):  # it is not empty, as after a success
                folder.rmdir()


@cache
def _host_digest() -> str:
    """Return a digest of the host's name: process ids are unique only within a host, or a container."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _temporary_prefix() -> str:
    return f"{STAGING_PREFIX}{_host_digest()}-{own_process()}-"


def remove_stale_files(folder: Path) -> None:
    """Remove the temporary files and folders of killed processes of this host.

    Temporary names contain the host and the process of their creator. Those of other hosts are kept.

    Args:
        folder: The folder to clean, without its subfolders.
    """
    host_prefix = f"{STAGING_PREFIX}{_host_digest()}-"
    for path in folder.glob(f"{host_prefix}*-*"):
        process = path.name.removeprefix(host_prefix).partition("-")[0]
        if has_ended(process):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _umask() -> int:
    # The umask can only be read by setting it, and it belongs to the whole process. 0o077 is the safe choice for a file
    # that another thread creates meanwhile.
    with _umask_lock:
        current = os.umask(0o077)
        os.umask(current)
    return current


def _replace_folder(staging: Path, final: Path) -> None:
    if not final.exists():
        staging.rename(final)
        return
    # POSIX rename() does not replace a folder that is not empty: move the old one away, and back if the second fails.
    old = Path(tempfile.mkdtemp(prefix=_temporary_prefix(), dir=final.parent))
    try:
        final.rename(old / "old")
        try:
            staging.rename(final)
        except BaseException:
            (old / "old").rename(final)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def move_files(source: Path, destination: Path) -> None:
    """Move the files and folders of one folder into another, which exists.

    The files may come from a process that is not trusted: links and devices are refused, and permissions are those of
    an ordinary new file.

    Args:
        source: The folder to empty.
        destination: The folder to fill.

    Raises:
        StepFailed: There is something else than files and folders.
        InputError: The files cannot be written.
        DiskFull: There is no space left.
    """
    with mapped_write_errors(destination):
        for path in sorted(source.iterdir()):
            new = destination / path.name
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                new.mkdir(exist_ok=True)
                move_files(path, new)
            elif stat.S_ISREG(mode):
                _move_file(path, new)
            else:
                raise StepFailed(f"a worker left {path.name}, which is not a file, among its output")


def _move_file(path: Path, new: Path) -> None:
    try:
        path.rename(new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # It follows no link: the process may have replaced the file by one since it was looked at.
        copy_plain_file(path, new)
        path.unlink()
    if not stat.S_ISREG(new.lstat().st_mode):
        new.unlink()
        raise StepFailed(f"a worker left {path.name}, which is not a file, among its output")
    # Not the process's own choice, which could be a set-user-id bit.
    new.chmod(0o666 & ~_umask())


def write_text(path: Path, text: str) -> None:
    """Replace a file of edgekit's own atomically. After an error the old file is unchanged.

    A symbolic link in its place is replaced: in a build folder from somebody else, it may lead anywhere. Use
    `write_output` for a file that the user named.

    Args:
        path: The file; missing parent folders are created.
        text: Its content, which is encoded as UTF-8.

    Raises:
        InputError: The file cannot be written.
        DiskFull: There is no space left.
    """
    with mapped_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_temporary_prefix(), dir=path.parent)
        try:
            # Paths may hold bytes that are no UTF-8, which Python reads as lone surrogates.
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_output(path: Path, text: str) -> None:
    """Write a file that the user named.

    A regular file is replaced atomically, and so is the target of a symbolic link, which stays a link. A device, a FIFO
    or an open file such as /dev/stdout is written to directly: replaced, it would be lost to all other programs.

    Args:
        path: The file; missing parent folders are created.
        text: Its content, which is encoded as UTF-8.

    Raises:
        InputError: The file cannot be written.
        DiskFull: There is no space left.
    """
    descriptor = _own_descriptor(path)
    target = Path(os.path.realpath(path))
    if descriptor is None and (target.is_file() or not os.path.lexists(target)):
        write_text(target, text)
        return
    with mapped_write_errors(path):
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if descriptor is not None:
            (sys.stderr if descriptor == 2 else sys.stdout).flush()
        # A copy of the descriptor shares its position: opened by name, a file would be written from its beginning.
        handle = os.open(target, os.O_WRONLY | os.O_CLOEXEC) if descriptor is None else os.dup(descriptor)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)


def _own_descriptor(path: Path) -> int | None:
    """Return the open file of this process that a path such as /dev/stdout, /dev/fd/3 or a link to them stands for."""
    for _ in range(40):  # the kernel's own limit for a chain of links
        if path.name.isdecimal() and os.path.realpath(path.parent) == f"/proc/{os.getpid()}/fd":
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


def to_json(data: Any) -> str:
    """Format data as JSON with sorted keys and a final line feed.

    Args:
        data: Values that JSON can represent.

    Returns:
        The text.

    Raises:
        ValueError: The data contain NaN or infinity, which JSON cannot represent; use None.
    """
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, data: Any) -> None:
    """Replace a file atomically by data as JSON.

    Args:
        path: The file; missing parent folders are created.
        data: Values that JSON can represent.

    Raises:
        InputError: The file cannot be written.
        DiskFull: There is no space left.
        ValueError: The data contain NaN or infinity.
    """
    write_text(path, to_json(data))


def read_bytes(path: Path, what: str) -> bytes:
    """Read a file that must not be empty.

    Args:
        path: The file.
        what: What the file is, for error messages, such as "manifest".

    Returns:
        The content.

    Raises:
        InputError: The file is missing, unreadable, empty, not a regular file, or larger than half of the available
            memory.
    """
    with open_file(path, what) as stream:
        check_size(path, what, os.fstat(stream.fileno()).st_size)
        try:
            content = stream.read()
        except OSError as error:
            raise InputError(f"{path}: cannot read this {what}: {(error.strerror or str(error)).lower()}") from error
    if not content:
        raise InputError(f"{path}: this {what} is empty")
    return content


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        what: What the file is, for error messages, such as "manifest".

    Returns:
        The object.

    Raises:
        InputError: The file is missing, unreadable, empty or not valid JSON, or holds no object.
    """
    content = read_bytes(path, what)
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        raise InputError(f"{path}: this {what} is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: this {what} must be a JSON object (got {type(data).__name__})")
    return data


def _refuse_constant(name: str) -> Any:
    # Python's parser accepts NaN and Infinity, which JSON has not.
    raise ValueError(f"{name} is not a JSON value")


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with open_file(path, "file") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_path(path: Path) -> str:
    """Compute the sha256 of a file or folder.

    Args:
        path: The file or folder.

    Returns:
        In hexadecimal, the digest of the file's content, or of the sorted names and digests of all files in the folder.

    Raises:
        InputError: The folder contains a symbolic link, a device, a FIFO or a socket.
    """
    if path.is_file():
        return sha256_file(path)
    hasher = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        mode = file.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{file}: only files and folders may be here; this is a link or a device")
        if stat.S_ISREG(mode):
            hasher.update(f"{file.relative_to(path).as_posix()} {sha256_file(file)}\n".encode())
    return hasher.hexdigest()


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
