"""The record `source.json` in `build/<model>/<kind>/source/`: the trained or imported model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgekit.core.environment.atomic_files import read_json, sha256_path, write_json
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.fixed_inputs import FixedInput, all_inputs
from edgekit.core.values.preprocessing import Preprocessing, without_raw
from edgekit.core.values.specs import Signature
from edgekit.core.values.typed_json import Count, FileName, Name, Sha256

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
        state: Names of the buffers and variables that a call changes; each sample is judged from their initial values.
        one_by_one: Whether each sample needs a call of its own, since its outputs depend on the others of a call.
        fixed: The inputs that are constants whenever the model is loaded; the signature is without them.
        preprocessing: The steps that are put in front of inputs whenever the model is loaded; the signature has the
            application's images.
        schema_version: The version of the file's format.
    """

    name: FileName
    kind: FileName
    file: FileName
    sha256: Sha256
    signature: Signature
    task: Name | None
    metric: Name | None
    metric_value: float | None
    parameters: Count
    code: Name | None = None
    code_sha256: Sha256 | None = None
    sizes: Mapping[Name, Count] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[Name, list[float]] = field(default_factory=dict)
    rounding: Mapping[Name, Rounding] = field(default_factory=dict)
    versions: Mapping[Name, Name] = field(default_factory=dict)
    state: tuple[Name, ...] = ()
    one_by_one: bool = False
    fixed: tuple[FixedInput, ...] = ()
    preprocessing: tuple[Preprocessing, ...] = ()
    schema_version: int = SOURCE_SCHEMA

    @property
    def has_real_samples(self) -> bool:
        """Whether the golden samples are real inputs, of a data set or of the user's, and not random numbers."""
        return "name" in self.data or "sample" in self.data

    @property
    def has_synthetic_calibration(self) -> bool:
        """Whether the calibration samples were synthesized from the network."""
        return "synthetic" in self.data

    @property
    def has_synthetic_golden(self) -> bool:
        """Whether the golden samples were synthesized from the network."""
        record = self.data.get("synthetic")
        return isinstance(record, Mapping) and bool(record.get("golden"))

    def all_inputs(self, signature: Signature) -> Signature:
        """Return a signature of this source with the inputs that its file or code takes.

        Inputs that are fixed have their places, and inputs that are preprocessed the shape behind the steps.

        Args:
            signature: The source's signature, possibly with other sizes.
        """
        return all_inputs(without_raw(signature, self.preprocessing), self.fixed)

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
    what, again = "a source model description", "train or import the model again"
    return decode_versioned(SourceModel, data, path, what, again, version=SOURCE_SCHEMA)


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

    def at(self, signature: Signature, sizes: Mapping[str, int]) -> LoadedSource:
        """Return the same model with another signature.

        Args:
            signature: The new signature; it may fix other dimensions than the old one.
            sizes: Symbolic dimension -> its size.

        Returns:
            A copy that shares the framework's object.
        """
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on N samples.

        Args:
            inputs: Input name -> array of shape `(N, ...)`.

        Returns:
            Output name -> array of shape `(N, ...)`.
        """
        ...

    def reset(self) -> None:
        """Return to the initial state, if calls change any."""
        ...

    def examples(self, batch: int) -> tuple[Array, ...]:
        """Return example inputs for a converter.

        Args:
            batch: The batch size.

        Returns:
            Arrays in the signature's order: real inputs if the model knows any, else zeros.
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

    def data_reads(self) -> tuple[str, ...]:
        """Return where the model's code reads values that depend on its inputs, which no trace can record.

        Returns:
            A description of each place; none for models without code.
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
