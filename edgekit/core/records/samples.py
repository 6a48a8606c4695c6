"""Samples on disk: npz files of named inputs and outputs, the same bytes for the same arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.core.environment.atomic_files import mapped_write_errors
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Samples:
    """Inputs by name, shape (N, ...); the source's outputs for them by name; labels, shape (N,), or None."""

    inputs: Arrays
    outputs: Arrays
    labels: Array | None = None

    @property
    def count(self) -> int:
        """The number of samples N."""
        return len(next(iter(self.inputs.values()), ()))

    def save(self, path: Path) -> None:
        """As a compressed npz, which numpy writes with a fixed timestamp. Raises InputError or DiskFull."""
        arrays = {f"input/{name}": array for name, array in self.inputs.items()}
        arrays |= {f"output/{name}": array for name, array in self.outputs.items()}
        if self.labels is not None:
            arrays["labels"] = self.labels
        with mapped_write_errors(path):
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

    def digest(self) -> str:
        """sha256 over names, dtypes, shapes and values."""
        hasher = hashlib.sha256()
        labels = {} if self.labels is None else {"": self.labels}
        for kind, arrays in (("input", self.inputs), ("output", self.outputs), ("labels", labels)):
            for name in sorted(arrays):
                array = np.ascontiguousarray(arrays[name])
                hasher.update(f"{kind}/{name} {array.dtype.str} {array.shape}\n".encode())
                hasher.update(array.tobytes())
        return hasher.hexdigest()


def load(path: Path, what: str) -> Samples:
    """The samples in the npz. Raises InputError when it is missing, damaged or something else. Never unpickles."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of {what}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception:  # noqa: BLE001 - zip, zlib, npy headers: a damaged byte raises errors of any type
        arrays = {}
    if not arrays or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise InputError(f"{path}: this is not an npz file of {what}, or it is damaged")
    inputs = {name[6:]: array for name, array in arrays.items() if name.startswith("input/")}
    outputs = {name[7:]: array for name, array in arrays.items() if name.startswith("output/")}
    if not inputs:
        raise InputError(f"{path}: this npz file holds no {what}: there is no array named input/NAME")
    return Samples(inputs, outputs, arrays.get("labels"))
