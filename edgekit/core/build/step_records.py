"""The folder `build/.edgekit/`: records of the steps that ran, and the lock that a run holds."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import StepKind, StepRecord
from edgekit.core.environment.atomic_files import mapped_write_errors, read_json, remove_stale_files, write_json
from edgekit.core.environment.user_cache import lock_exclusively
from edgekit.core.errors import InputError
from edgekit.core.records import checksummed_json
from edgekit.core.values.typed_json import decode

# The version of the files in this folder; a change of their format increases it.
RECORDS_SCHEMA = 1
# Inside the build folder. The dot hides it from the search for artifacts, whose folders are not hidden.
FOLDER = ".edgekit"
# The files and the folder inside it.
_VERSION_FILE, _LOCK_FILE, _DIGESTS_FILE, _STEPS = "version.json", "lock", "digests.json", "steps"
_PLAN_FILE = "plan.json"


class StepRecords:
    """The step records of a build folder. A record with a wrong checksum counts as missing.

    Attributes:
        folder: The folder `.edgekit` in the build folder.
    """

    def __init__(self, build: Path) -> None:
        """Open the records of a build folder, which need not exist yet.

        Args:
            build: The build folder.

        Raises:
            InputError: A newer edgekit wrote the records.
        """
        self.folder = build / FOLDER
        self._steps = self.folder / _STEPS
        _check_version(self.folder / _VERSION_FILE)

    @property
    def plan_file(self) -> Path:
        """The file that caches the plan of the latest run."""
        return self.folder / _PLAN_FILE

    def digests(self, root: Path) -> FileDigests:
        """Return the digests of files, with those that earlier runs stored.

        Args:
            root: The project folder, which relative paths are resolved against.

        Returns:
            The digests.
        """
        return FileDigests(root, self.folder / _DIGESTS_FILE)

    def load(self, step: str) -> StepRecord | None:
        """Load the record of a step.

        Args:
            step: The step's name.

        Returns:
            The record; None if it is missing or damaged.
        """
        data = checksummed_json.load(self._file(step))
        return None if data is None else _record(data)

    def all(self) -> Iterator[StepRecord]:
        """Yield all records that are not damaged, in the order of their file names."""
        for path in sorted(self._steps.glob("*.json")):
            data = checksummed_json.load(path)
            record = None if data is None else _record(data)
            if record is not None:
                yield record

    def save(self, record: StepRecord) -> None:
        """Store a record, which replaces an earlier one of the same step.

        Args:
            record: The record.

        Raises:
            InputError: The file cannot be written.
            DiskFull: There is no space left.
        """
        checksummed_json.save(self._file(record.step), asdict(record))

    def forget(self, step: str) -> None:
        """Remove the record of a step, if there is one."""
        self._file(step).unlink(missing_ok=True)

    def _file(self, step: str) -> Path:
        # The digest keeps apart names that differ only in replaced characters, or after the 80th.
        readable = re.sub(r"[^\w.-]+", "-", step)[:80]
        return self._steps / f"{readable}-{hashlib.sha256(step.encode()).hexdigest()[:8]}.json"

    @contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[StepRecords]:
        """Hold the lock of the build folder, so that only one run at a time writes to it.

        Args:
            waiting: Called with the process id of the run that holds the lock, before this one waits for it.

        Yields:
            These records.

        Raises:
            InputError: The folder cannot be written, or a newer edgekit wrote the records.
            DiskFull: There is no space left.
        """
        with mapped_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / _LOCK_FILE).open("a+")
        # The kernel releases a flock() when the file is closed, also when the process is killed.
        with stream:
            try:
                lock_exclusively(stream, self.folder, fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                waiting(stream.read().strip() or "unknown")
                lock_exclusively(stream, self.folder)
            # Once more: a newer edgekit may have written here while this run waited.
            current = _check_version(self.folder / _VERSION_FILE)
            with mapped_write_errors(self.folder):
                stream.truncate(0)
                stream.write(f"{os.getpid()}\n")
                stream.flush()
                remove_stale_files(self.folder)
                remove_stale_files(self._steps)
            if not current:
                write_json(self.folder / _VERSION_FILE, {"schema_version": RECORDS_SCHEMA})
            yield self


def _check_version(path: Path) -> bool:
    """Return whether the version file names this edgekit's schema; raise InputError if it names a newer one."""
    if not path.exists():
        return False
    try:
        version = read_json(path, "record of the pipeline").get("schema_version")
    except InputError:
        return False  # damaged: the file is written again, and each record has its own checksum
    if isinstance(version, int) and not isinstance(version, bool) and version > RECORDS_SCHEMA:
        raise InputError(
            f"{path}: a newer edgekit wrote these records (schema_version {version}; this one reads"
            f" {RECORDS_SCHEMA}): update edgekit, or use another --root; nothing was changed"
        )
    return version == RECORDS_SCHEMA


def _record(data: Any) -> StepRecord | None:
    # Records of edgekit up to 0.9 call the import of a user's model "take in".
    if isinstance(data, dict) and data.get("kind") == "take in":
        data = {**data, "kind": StepKind.IMPORT.value}
    try:
        return decode(StepRecord, data, "step record")
    except InputError:
        return None
