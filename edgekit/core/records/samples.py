"""The record `golden.npz` and other npz files of samples: named inputs, outputs and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.core.environment.atomic_files import mapped_write_errors
from edgekit.core.errors import InputError
from edgekit.core.numerics.array_files import load_arrays
from edgekit.core.numerics.metrics import Array

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Samples:
    """N samples.

    Attributes:
        inputs: Input name -> array of shape `(N, ...)`.
        outputs: Output name -> the source model's output for these inputs, of shape `(N, ...)`.
        labels: Labels of shape `(N,)`, or None.
    """

    inputs: Arrays
    outputs: Arrays
    labels: Array | None = None

    @property
    def count(self) -> int:
        """The number of samples N."""
        return len(next(iter(self.inputs.values()), ()))

    def save(self, path: Path) -> None:
        """Write the samples as a compressed npz. The same arrays give the same bytes.

        Args:
            path: The file.

        Raises:
            InputError: The file cannot be written.
            DiskFull: There is no space left.
        """
        # numpy writes zip entries with a fixed timestamp. The prefixes keep names apart from numpy's own parameters.
        arrays = {f"input/{name}": array for name, array in self.inputs.items()}
        arrays |= {f"output/{name}": array for name, array in self.outputs.items()}
        if self.labels is not None:
            arrays["labels"] = self.labels
        with mapped_write_errors(path):
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

    def digest(self) -> str:
        """Compute the sha256 of names, dtypes, shapes and values.

        Returns:
            The digest in hexadecimal, which does not depend on the order of names or on the memory layout.
        """
        hasher = hashlib.sha256()
        labels = {} if self.labels is None else {"": self.labels}
        for kind, arrays in (("input", self.inputs), ("output", self.outputs), ("labels", labels)):
            for name in sorted(arrays):
                array = np.ascontiguousarray(arrays[name])
                hasher.update(f"{kind}/{name} {array.dtype.str} {array.shape}\n".encode())
                hasher.update(array.tobytes())
        return hasher.hexdigest()


def load(path: Path, what: str) -> Samples:
    """Read samples from an npz file, without unpickling objects.

    Args:
        path: The file.
        what: What the file holds, for error messages, such as "golden samples".

    Returns:
        The samples.

    Raises:
        InputError: The file is missing or damaged, or is not an npz file of samples.
    """
    arrays = load_arrays(path, f"npz file of {what}")
    if "" in arrays:
        raise InputError(f"{path}: this is an npy file with one array, not an npz file of {what}")
    inputs = {name.removeprefix("input/"): array for name, array in arrays.items() if name.startswith("input/")}
    outputs = {name.removeprefix("output/"): array for name, array in arrays.items() if name.startswith("output/")}
    if not inputs:
        raise InputError(f"{path}: this npz file holds no {what}: there is no array named input/NAME")
    return Samples(inputs, outputs, arrays.get("labels"))
