"""Files that a record, a model file or another host names: they stay inside a folder, and links are not followed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgekit.core.environment.bounded_files import open_descriptor
from edgekit.core.errors import InputError


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file inside a folder.

    Args:
        folder: The folder.
        name: The file's path relative to the folder, from a source that is not trusted. The file need not exist.

    Returns:
        The folder joined with the name.

    Raises:
        InputError: The name is empty, absolute or contains `..`, or leads outside the folder through a symbolic link.
    """
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise InputError(f"{name!r} is not the relative path of a file inside {folder}")
    path = folder / relative
    inside = False
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a loop of links
        inside = path.resolve().is_relative_to(folder.resolve())
    if not inside:
        raise InputError(f"{name!r} leads outside {folder} through a symbolic link")
    return path


def require_plain_file(folder: Path, name: str) -> Path:
    """Return the path of a regular file inside a folder that is reached without symbolic links.

    Args:
        folder: The folder, which may be a link itself.
        name: The file's path relative to the folder, from a source that is not trusted.

    Returns:
        The folder joined with the name.

    Raises:
        InputError: `path_inside` refuses the name, the file is missing, or it or a folder on the way is a link, a
            device, a FIFO or a socket.
    """
    path = path_inside(folder, name)
    parts = PurePosixPath(name).parts
    for count in range(1, len(parts)):
        require_plain_folder(folder.joinpath(*parts[:count]))
    if not stat.S_ISREG(_mode(path)):
        raise InputError(f"{path}: this is not a regular file")
    return path


def require_plain_folder(path: Path) -> None:
    """Require that a path is a folder, and not a link to one.

    Args:
        path: The folder.

    Raises:
        InputError: The folder is missing, or is something else.
    """
    if not stat.S_ISDIR(_mode(path)):
        raise InputError(f"{path}: this is not a regular folder")


def _mode(path: Path) -> int:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read this file: {(error.strerror or str(error)).lower()}") from error
    if stat.S_ISLNK(mode):
        raise InputError(
            f"{path}: this is a symbolic link, which edgekit does not follow; replace it by what it links to"
            " (cp -rL copies a folder in this way)"
        )
    return mode


def open_plain_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. A link is not followed; a device or FIFO is refused and not waited for.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        InputError: The file is missing or unreadable, or is not a regular file.
    """
    handle = open_descriptor(path, "file", os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path}: this is not a regular file")
    return os.fdopen(handle, "rb")


def read_plain_file(path: Path, limit: int) -> bytes:
    """Read a small regular file whole. A link is not followed.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Returns:
        The content.

    Raises:
        InputError: The file is missing, unreadable or larger, or is not a regular file.
    """
    with open_plain_file(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{path}: this file is larger than {limit} bytes")
    return content


def copy_plain_file(source: Path, target: Path) -> None:
    """Copy the content of a regular file. A link is not followed.

    Args:
        source: The file to read.
        target: The file to write; missing parent folders are created.

    Raises:
        InputError: The source is missing or unreadable, or is not a regular file.
        OSError: The target cannot be written.
    """
    with open_plain_file(source) as reader:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
