"""The trained model as it stands in `build/<model>/<framework>/source/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgekit.core.environment.atomic_files import read_json, sha256_path, write_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.rounding_error import Rounding, rounding_from_dict
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import Signature

T = TypeVar("T")
SOURCE_SCHEMA = 1


@dataclass(frozen=True)
class SourceModel:
    """What the user trained, and how well it does.

    `kind` is that of a source: keras, torch, onnx … `file` is the model or weights file (or folder) in this folder,
    `code` the function that builds the network around bare weights, as `Factory` writes it, relative to the model's
    folder (a user's model: to the project's root); None where the file is whole by itself. Task and metric are None
    where nobody said what the outputs mean. `sizes` has the size in the samples of each symbolic dimension that is not
    the batch. `rounding` is how far float32 moves each output on the golden samples, where that could be measured.
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
        """Writes source.json."""
        write_json(folder / SOURCE_FILE, asdict(self))

    def weights_path(self, folder: Path) -> Path:
        """The model's file or folder. Raises InputError when it is missing or its hash is not the recorded one."""
        path = folder / self.file
        if not path.exists():
            raise InputError(f"{path}: the trained model is missing; run: edgekit train {self.name}")
        if sha256_path(path) != self.sha256:
            raise InputError(
                f"{path}: this file is not the one that was trained: its sha256 differs from source.json's"
            )
        return path


def load_source(folder: Path) -> SourceModel:
    """The source model in the folder. Raises InputError when source.json is missing, damaged or of another version."""
    path = folder / SOURCE_FILE
    data = read_json(path, "source model description")
    known = {item.name for item in fields(SourceModel)}
    if data.get("schema_version") != SOURCE_SCHEMA or set(data) - known:
        raise InputError(f"{path}: not a source model description of version {SOURCE_SCHEMA}; train the model again")
    try:
        made = {
            "signature": Signature.from_dict(data["signature"]),
            "notes": tuple(data.get("notes", ())),
            "rounding": rounding_from_dict(data.get("rounding", {})),
        }
        return SourceModel(**{**data, **made})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: this source model description lacks or mistypes a key ({error})") from None


class LoadedSource(Protocol):
    """A source model in memory, in the process of its framework. What `edgekit.sources` makes and targets convert.

    `model` is the framework's own object. `run` takes inputs by name, shape (N, ...), and returns outputs by name.
    """

    kind: str
    model: Any
    signature: Signature
    sizes: Mapping[str, int]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for N samples."""
        ...

    def examples(self, batch: int) -> tuple[Array, ...]:
        """Zeros in the shapes of one call with that batch, in the signature's order."""
        ...

    def call(self, *tensors: Any) -> list[Any]:
        """The outputs in order for the framework's own tensors in order, as a converter traces it."""
        ...

    def cached(self, what: str, make: Callable[[], T]) -> T:
        """What `make` returns, made once for this model under this signature: conversions to several precisions begin
        alike. Nobody may change it."""
        ...
