"""A content-addressed file store on any fsspec file system: passes a pipeline's files between hosts without a shared
folder."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.core.environment.atomic_files import STAGING_PREFIX, mapped_write_errors, sha256_file
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError, MissingDependency, StepFailed

FSSPEC = Requirement("fsspec", "fsspec", "dask")


_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(value: object) -> bool:
    """Return whether a value is a sha256 in hex, as the store names its files."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


class ContentStore:
    """Content-addressed store with the layout `objects/<first two digits>/<sha256>` below a URL; reads are verified."""

    def __init__(self, url: str) -> None:
        """Connect to the file system of a URL.

        Args:
            url: Any URL or path that fsspec opens, such as `s3://bucket/folder`.

        Raises:
            InputError: fsspec does not know the URL's protocol, or cannot open it.
            MissingDependency: fsspec, or the driver for this protocol, is not installed.
        """
        require((FSSPEC,), "--store")
        import fsspec

        self.url = url
        try:
            self._files, self._base = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise MissingDependency(f"the store {url} needs a package that is not installed: {error}") from None
        except (ValueError, OSError) as error:
            raise InputError(f"{url}: not a valid store URL: {error}") from None

    def probe(self) -> None:
        """Write and remove a few bytes, so that an unusable store is reported before the first step runs.

        Raises:
            InputError: The store cannot be written.
        """
        path = str(PurePosixPath(self._base, f"probe-{uuid.uuid4().hex}"))
        with self._mapped_errors("write to"):
            self._files.makedirs(self._base, exist_ok=True)
            self._files.pipe_file(path, b"edgekit")
            self._files.rm_file(path)

    def put(self, path: Path, digest: str) -> None:
        """Upload a file, unless the store already has one with this digest.

        Args:
            path: The local file.
            digest: The file's sha256, in hex.

        Raises:
            InputError: The store cannot be written.
        """
        name = self._name(digest)
        part = f"{name}.{uuid.uuid4().hex}"
        with self._mapped_errors("write to"):
            if self._files.exists(name):
                return
            self._files.makedirs(str(PurePosixPath(name).parent), exist_ok=True)
            self._files.put_file(str(path), part)
            self._files.mv(part, name)  # a process that is killed before leaves no partial file under the final name

    def get(self, digest: str, path: Path) -> None:
        """Download the file with this digest to `path`, atomically.

        Args:
            digest: The file's sha256, in hex.
            path: The local path to write.

        Raises:
            StepFailed: The store does not have the file, or its copy is damaged; a damaged copy is removed.
            DiskFull: The local disk is full.
            InputError: The store cannot be read, or `path` cannot be written.
        """
        part = path.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        with mapped_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._mapped_errors("read"):
                try:
                    self._files.get_file(self._name(digest), str(part))
                except FileNotFoundError:
                    raise StepFailed(
                        f"the store {self.url} no longer has {path.name} (sha256 {digest[:12]}); run the command again"
                    ) from None
            if sha256_file(part) != digest:
                with contextlib.suppress(OSError):
                    self._files.rm_file(self._name(digest))
                raise StepFailed(
                    f"the copy of {path.name} in the store {self.url} was damaged and has been removed;"
                    " run the command again"
                )
            with mapped_write_errors(path):
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _name(self, digest: str) -> str:
        if not is_digest(digest):  # another text could name any file of the store's file system
            raise StepFailed(f"{digest!r} is not the sha256 of a file in the store {self.url}")
        return str(PurePosixPath(self._base, "objects", digest[:2], digest))

    @contextmanager
    def _mapped_errors(self, action: str) -> Iterator[None]:
        """Map any error of an fsspec driver to InputError: drivers have no common base class for theirs."""
        try:
            yield
        except (StepFailed, InputError):
            raise
        except Exception as error:
            reason: Any = getattr(error, "strerror", None) or error
            raise InputError(f"cannot {action} the store {self.url}: {reason}") from error
