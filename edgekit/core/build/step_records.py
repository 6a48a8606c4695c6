"""`build/.edgekit/`: what the pipeline remembers of its steps, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import StepKey, StepKind, StepRecord
from edgekit.core.environment.atomic_files import mapped_write_errors, read_json, remove_stale_files, write_json
from edgekit.core.errors import InputError
from edgekit.core.records import checksummed_json

RECORDS_SCHEMA = 1
FOLDER = ".edgekit"
_VERSION_FILE, _LOCK_FILE, _DIGESTS_FILE, _STEPS = "version.json", "lock", "digests.json", "steps"
_PLAN_FILE = "plan.json"


class StepRecords:
    """The records in one build folder. A record whose own hash is wrong is as good as none."""

    def __init__(self, build: Path) -> None:
        """Raises InputError when a newer edgekit wrote them."""
        self.folder = build / FOLDER
        self._steps = self.folder / _STEPS
        _check_version(self.folder / _VERSION_FILE)

    @property
    def plan_file(self) -> Path:
        """The plan of the latest run."""
        return self.folder / _PLAN_FILE

    def digests(self, root: Path) -> FileDigests:
        """Digests with what was remembered of them."""
        return FileDigests(root, self.folder / _DIGESTS_FILE)

    def load(self, step: str) -> StepRecord | None:
        """The record of a step; None where there is none, or a damaged one."""
        data = checksummed_json.load(self._file(step))
        return None if data is None else _record(data)

    def all(self) -> Iterator[StepRecord]:
        """Every good record."""
        for path in sorted(self._steps.glob("*.json")):
            data = checksummed_json.load(path)
            record = None if data is None else _record(data)
            if record is not None:
                yield record

    def save(self, record: StepRecord) -> None:
        """Keeps it. Raises InputError or DiskFull."""
        checksummed_json.save(self._file(record.step), asdict(record))

    def forget(self, step: str) -> None:
        """Removes the record of a step."""
        self._file(step).unlink(missing_ok=True)

    def _file(self, step: str) -> Path:
        readable = re.sub(r"[^\w.-]+", "-", step)[:80]
        return self._steps / f"{readable}-{hashlib.sha256(step.encode()).hexdigest()[:8]}.json"

    @contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[StepRecords]:
        """One run at a time in the build folder: a second one tells `waiting` whom it waits for, and waits.

        The lock ends with its process, however that ends. Raises InputError when the folder cannot be written.
        """
        with mapped_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / _LOCK_FILE).open("a+")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                stream.seek(0)
                waiting(stream.read().strip() or "unknown")
                fcntl.flock(stream, fcntl.LOCK_EX)
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
    """Whether the file says that this edgekit's records stand beside it. Raises InputError for a newer one's."""
    if not path.exists():
        return False
    try:
        version = read_json(path, "record of the pipeline").get("schema_version")
    except InputError:
        return False  # damaged: it is written anew, and each record has a hash of its own
    if isinstance(version, int) and version > RECORDS_SCHEMA:
        raise InputError(
            f"{path}: a newer edgekit keeps its records here (schema_version {version}; this one reads"
            f" {RECORDS_SCHEMA}): update edgekit, or take another --root; nothing was changed"
        )
    return version == RECORDS_SCHEMA


def _record(data: Mapping[str, Any]) -> StepRecord | None:
    try:
        key = StepKey(data["key"]["files"], data["key"]["values"])
        return StepRecord(**{**data, "kind": _kind(data["kind"]), "key": key, "partial": tuple(data["partial"])})
    except (KeyError, TypeError, ValueError):
        return None


def _kind(text: str) -> StepKind:
    # Records of edgekit up to 0.9 call the import of a user's model "take in".
    return StepKind.IMPORT if text == "take in" else StepKind(text)
