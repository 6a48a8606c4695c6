"""Training checkpoints on disk, from which an interrupted training resumes to the same result."""

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
# "standing" is the key of the progress in schema 1.
_KEYS = {"schema_version", "fingerprint", "standing", "file", "sha256"}
_RESTART_HINT = "to start over, train without --resume"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a complete epoch.

    Attributes:
        progress: Epoch, history and best epoch as JSON values.
        state: Weights and optimizer state in the framework's own serialization.
    """

    progress: Mapping[str, Any]
    state: bytes


@dataclass(frozen=True)
class Checkpoints:
    """A folder with the latest checkpoint: a state file, and a JSON file with its name and its hash.

    Each file is replaced atomically, the JSON file last: a process killed while saving leaves the previous checkpoint
    intact.

    Attributes:
        folder: The folder; created by the first `save`.
        fingerprint: Everything that determines the resulting weights: hyperparameters, data, code and versions.
    """

    folder: Path
    fingerprint: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Path of the JSON file."""
        return self.folder / CHECKPOINT_FILE

    def save(self, progress: Mapping[str, Any], state: bytes) -> None:
        """Replace the checkpoint.

        Args:
            progress: Epoch, history and best epoch as JSON values; must contain `epoch`.
            state: Weights and optimizer state in the framework's own serialization.

        Raises:
            InputError: The folder cannot be written.
            DiskFull: The disk is full.
        """
        name = f"state-{progress['epoch']}"
        record = {
            "schema_version": CHECKPOINT_SCHEMA,
            "fingerprint": self.fingerprint,
            "standing": progress,
            "file": name,
            "sha256": hashlib.sha256(state).hexdigest(),
        }
        with mapped_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace_file(self.folder / name, state)
            _replace_file(self.path, to_json(record).encode())
            for path in self.folder.iterdir():
                if path.name not in (name, CHECKPOINT_FILE):
                    path.unlink()

    def load(self) -> Checkpoint | None:
        """Return the checkpoint, or None if there is none.

        Raises:
            InputError: The checkpoint is damaged, or its fingerprint differs.
        """
        if not self.path.is_file():
            return None
        record = read_json(self.path, "checkpoint")
        if record.get("schema_version") != CHECKPOINT_SCHEMA or set(record) != _KEYS:
            raise InputError(
                f"{self.path}: this is not a checkpoint of schema version {CHECKPOINT_SCHEMA}; {_RESTART_HINT}"
            )
        difference = _describe_difference(record["fingerprint"], json.loads(to_json(self.fingerprint)))
        if difference:
            raise InputError(
                f"{self.folder}: this checkpoint belongs to a different training ({difference}); {_RESTART_HINT}"
            )
        return Checkpoint(record["standing"], self._state(record))

    def _state(self, record: Mapping[str, Any]) -> bytes:
        path = self.folder / Path(str(record["file"])).name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise InputError(f"{path}: this checkpoint is truncated or damaged (its sha256 differs); {_RESTART_HINT}")
        return content


def _replace_file(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)  # noqa: PTH105 - os.replace states that an existing file is overwritten


def _describe_difference(stored: Any, current: Mapping[str, Any]) -> str:
    """Return what differs between two fingerprints as a phrase; empty if they are equal."""
    if stored == current:
        return ""
    stored = stored if isinstance(stored, dict) else {}
    changed = [key for key in current if stored.get(key) != current[key]]
    if changed != ["hyperparameters"] or not isinstance(stored.get("hyperparameters"), dict):
        return f"different {', '.join(changed) or 'keys'}"
    old, new = stored["hyperparameters"], current["hyperparameters"]
    names = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return ", ".join(f"{key} was {_format_value(old.get(key))}, now {_format_value(new.get(key))}" for key in names)


def _format_value(value: Any) -> str:
    return "unset" if value is None else str(value)
