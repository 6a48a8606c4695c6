"""The state of a training after its latest epoch, on disk, so that a killed one can go on to the same result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import mapped_write_errors, read_json, to_json
from edgekit.core.errors import InputError

CHECKPOINT_FILE = "checkpoint.json"
CHECKPOINT_SCHEMA = 1
_KEYS = {"schema_version", "fingerprint", "standing", "file", "sha256"}


@dataclass(frozen=True)
class Checkpoint:
    """`standing` says how far the training is (plain values), `state` is the framework's own: weights, optimizer."""

    standing: Mapping[str, Any]
    state: bytes


@dataclass(frozen=True)
class Checkpoints:
    """A folder that holds one checkpoint: a state file, and a JSON file that names it and its hash.

    `fingerprint` is what has to be the same for the training to end in the same weights, by what it is:
    hyperparameters, data, code, versions. Each file is replaced in one step, the JSON file last: a kill leaves the
    earlier checkpoint.
    """

    folder: Path
    fingerprint: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.folder / CHECKPOINT_FILE

    def save(self, standing: Mapping[str, Any], state: bytes) -> None:
        """Replaces the checkpoint. Raises InputError (not writable) or DiskFull."""
        name = f"state-{standing['epoch']}"
        record = {
            "schema_version": CHECKPOINT_SCHEMA,
            "fingerprint": self.fingerprint,
            "standing": standing,
            "file": name,
            "sha256": hashlib.sha256(state).hexdigest(),
        }
        with mapped_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.folder / name, state)
            _replace(self.path, to_json(record).encode())
            for path in self.folder.iterdir():
                if path.name not in (name, CHECKPOINT_FILE):
                    path.unlink()

    def load(self) -> Checkpoint | None:
        """The checkpoint, or None when there is none.

        Raises InputError when it is damaged, or of a training with another fingerprint.
        """
        if not self.path.is_file():
            return None
        record = read_json(self.path, "checkpoint")
        if record.get("schema_version") != CHECKPOINT_SCHEMA or set(record) != _KEYS:
            raise InputError(f"{self.path}: not a checkpoint of version {CHECKPOINT_SCHEMA}; {_ANEW}")
        difference = _difference(record["fingerprint"], json.loads(to_json(self.fingerprint)))
        if difference:
            raise InputError(f"{self.folder}: this checkpoint is of another training: {difference}; {_ANEW}")
        return Checkpoint(record["standing"], self._state(record))

    def _state(self, record: Mapping[str, Any]) -> bytes:
        path = self.folder / Path(str(record["file"])).name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise InputError(f"{path}: this checkpoint is truncated or damaged: its sha256 differs; {_ANEW}")
        return content


_ANEW = "train without --resume to start anew"


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)  # noqa: PTH105 - the name says what it is


def _difference(then: Any, now: Mapping[str, Any]) -> str:
    """What the two fingerprints differ in, in words; empty when they are the same."""
    if then == now:
        return ""
    then = then if isinstance(then, dict) else {}
    other = [key for key in now if then.get(key) != now[key]]
    if other != ["hyperparameters"] or not isinstance(then.get("hyperparameters"), dict):
        return f"other {', '.join(other) or 'keys'}"
    old, new = then["hyperparameters"], now["hyperparameters"]
    names = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return ", ".join(f"{key} {_text(old.get(key))}, now {_text(new.get(key))}" for key in names)


def _text(value: Any) -> str:
    return "unset" if value is None else str(value)
