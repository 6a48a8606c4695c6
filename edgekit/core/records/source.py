"""The record `source.json` in `build/<model>/<kind>/source/`: the trained or imported model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgekit.core.environment.atomic_files import read_json, sha256_path, write_json
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.rounding_error import Rounding, rounding_from_dict
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import Signature

T = TypeVar("T")
SOURCE_SCHEMA = 1


@dataclass(frozen=True)
class SourceModel:
    """The content of `source.json`.

    Attributes:
        name: The model's name.
        kind: The source kind: `keras`, `torch`, `onnx`, …
        file: The model or weights file (or folder) beside `source.json`.
        sha256: The digest of `file`, by `sha256_path`.
        signature: The inputs and outputs.
        task: The task, or None if it is unknown.
        metric: The task metric, or None if it is unknown.
        metric_value: The metric's value on the test set.
        parameters: The number of parameters.
        code: The function that builds the network for a file of bare weights, as `Factory` writes it, relative to the
            folder of a reference model or else to the project's root; None if the file contains the network.
        code_sha256: The digest of the file of this code; None for an installed module.
        sizes: Symbolic dimension -> its size in the samples, for all dimensions but the batch.
        notes: What a reader of the record has to know.
        data: The data set and its splits.
        training: The hyperparameters.
        history: Metric -> its value after each epoch.
        rounding: Output -> the float32 rounding error on the golden samples, where it could be measured.
        versions: Package -> version.
        schema_version: The version of the file's format.
    """

    name: str
    kind: str
    file: str
    sha256: str
    signature: Signature
    task: str | None
    metric: str | None
    metric_value: float | None
    parameters: int
    code: str | None = None
    code_sha256: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, list[float]] = field(default_factory=dict)
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SOURCE_SCHEMA

    def save(self, folder: Path) -> None:
        """Write `source.json`.

        Args:
            folder: The source's folder.

        Raises:
            InputError: The file cannot be written.
            DiskFull: There is no space left.
        """
        write_json(folder / SOURCE_FILE, asdict(self))

    def weights_path(self, folder: Path) -> Path:
        """Return the model's file or folder after checking its digest.

        Args:
            folder: The source's folder.

        Returns:
            The path.

        Raises:
            InputError: The file is missing, outside the folder, or differs from the recorded one.
        """
        path = path_inside(folder, self.file)
        if not path.exists():
            raise InputError(f"{path}: the trained model is missing; run: edgekit train {self.name}")
        if sha256_path(path) != self.sha256:
            raise InputError(
                f"{path}: this file is not the one that was trained: its sha256 differs from source.json's"
            )
        return path


def load_source(folder: Path) -> SourceModel:
    """Read the `source.json` of a folder.

    Args:
        folder: The source's folder.

    Returns:
        The source model.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    path = folder / SOURCE_FILE
    data = read_json(path, "source model description")
    allowed = {field.name for field in fields(SourceModel)}
    if data.get("schema_version") != SOURCE_SCHEMA or set(data) - allowed:
        raise InputError(f"{path}: not a source model description of version {SOURCE_SCHEMA}; train the model again")
    try:
        decoded = {
            "signature": Signature.from_dict(data["signature"]),
            "notes": tuple(data.get("notes", ())),
            "rounding": rounding_from_dict(data.get("rounding", {})),
        }
        return SourceModel(**{**data, **decoded})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: this source model description has a missing or mistyped key ({error})") from None


class LoadedSource(Protocol):
    """A source model in the memory of its framework's process, which sources load and targets convert.

    Attributes:
        kind: The source kind.
        model: The framework's object.
        signature: The inputs and outputs.
        sizes: Symbolic dimension -> its size in the samples, for all dimensions but the batch.
    """

    kind: str
    model: Any
    signature: Signature
    sizes: Mapping[str, int]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on N samples.

        Args:
            inputs: Input name -> array of shape `(N, ...)`.

        Returns:
            Output name -> array of shape `(N, ...)`.
        """
        ...

    def examples(self, batch: int) -> tuple[Array, ...]:
        """Return example inputs for a converter.

        Args:
            batch: The batch size.

        Returns:
            Arrays of zeros in the signature's order.
        """
        ...

    def call(self, *tensors: Any) -> list[Any]:
        """Call the model with the framework's own tensors, as a converter traces it.

        Args:
            *tensors: The inputs in the signature's order.

        Returns:
            The outputs in the signature's order.
        """
        ...

    def cached(self, what: str, make: Callable[[], T]) -> T:
        """Return a value that is computed once for this model and signature: conversions share their first steps.

        Args:
            what: The name of the value.
            make: Computes the value.

        Returns:
            The value of the first call. It must not be modified.
        """
        ...
