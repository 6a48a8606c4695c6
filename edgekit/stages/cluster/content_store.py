"""Files by their content, in a folder, a bucket or whatever else fsspec can open: how hosts that share no folder pass
a pipeline's files to one another."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.core.environment.atomic_files import STAGING_PREFIX, mapped_write_errors, sha256_file
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError, MissingDependency, StepFailed

FSSPEC = Requirement("fsspec", "fsspec", "dask")


class ContentStore:
    """`objects/<two digits>/<sha256>` below a URL. What it hands out has the digest that was asked for."""

    def __init__(self, url: str) -> None:
        """Raises InputError for a URL that fsspec does not know, MissingDependency where its driver is absent."""
        require((FSSPEC,), "a store")
        import fsspec

        self.url = url
        try:
            self._files, self._base = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise MissingDependency(f"the store {url} needs another package: {error}") from None
        except (ValueError, OSError) as error:
            raise InputError(f"{url}: this is no store: {error}") from None

    def probe(self) -> None:
        """Writes, reads and removes a few bytes. Raises InputError when that does not go."""
        path = str(PurePosixPath(self._base, f"probe-{uuid.uuid4().hex}"))
        with self._told("write to"):
            self._files.makedirs(self._base, exist_ok=True)
            self._files.pipe_file(path, b"edgekit")
            self._files.rm_file(path)

    def put(self, path: Path, digest: str) -> None:
        """Keeps the file, unless one with this digest is there. Raises InputError when it cannot be written."""
        name = self._name(digest)
        part = f"{name}.{uuid.uuid4().hex}"
        with self._told("write to"):
            if self._files.exists(name):
                return
            self._files.makedirs(str(PurePosixPath(name).parent), exist_ok=True)
            self._files.put_file(str(path), part)
            self._files.mv(part, name)  # whoever is killed before leaves nothing under the name

    def get(self, digest: str, path: Path) -> None:
        """Writes the file with this digest to `path`, whole or not at all.

        Raises StepFailed when it is not there or is damaged (it is then removed), DiskFull or InputError when it cannot
        be written.
        """
        part = path.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        with mapped_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._told("read"):
                try:
                    self._files.get_file(self._name(digest), str(part))
                except FileNotFoundError:
                    raise StepFailed(
                        f"{self.url} has no file {digest[:12]} any more: it goes with {path.name}"
                    ) from None
            if sha256_file(part) != digest:
                with contextlib.suppress(OSError):
                    self._files.rm_file(self._name(digest))
                raise StepFailed(f"what {self.url} kept of {path.name} is damaged; it was removed there: run it again")
            with mapped_write_errors(path):
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _name(self, digest: str) -> str:
        return str(PurePosixPath(self._base, "objects", digest[:2], digest))

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """What a driver raises, in a sentence: each has errors of its own."""
        try:
            yield
        except (StepFailed, InputError):
            raise
        except Exception as error:
            reason: Any = getattr(error, "strerror", None) or error
            raise InputError(f"cannot {doing} the store {self.url}: {reason}") from error
