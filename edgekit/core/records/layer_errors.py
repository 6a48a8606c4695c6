"""The record `layers.json` beside an artifact: its error layer by layer, and the digests of the compared files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.layerwise_diff import LayerwiseDiff, TensorDiff
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.specs import Variant
from edgekit.core.values.typed_json import FileName, Name, PositiveCount, Sha256

LAYERS_SCHEMA = 2

# The keys that had another name in older versions.
_OLDER = {1: {"how": "tag"}}

LAYERS_FILE = "layers.json"

# The `reference` when an artifact is compared with its source model.
SOURCE = "source"


@dataclass(frozen=True)
class LayerErrors:
    """The content of `layers.json`: the layer-wise diff of an artifact and its reference.

    Attributes:
        model: The model's name.
        kind: The kind of its source.
        target: The artifact's target.
        precision: The artifact's precision.
        artifact_sha256: The sha256 of the artifact that was compared.
        reference: `source`, or the variant of the float32 artifact that it was compared with.
        reference_sha256: The sha256 of the reference.
        samples: The number of golden samples.
        tensors: The error of each tensor that both have.
        only_reference: Tensors that only the reference has.
        only_actual: Tensors that only the artifact has.
        tag: The tag of the variant, such as `tuned`.
        schema_version: The version of the file's format.
    """

    model: FileName
    kind: FileName
    target: FileName
    precision: FileName
    artifact_sha256: Sha256
    reference: FileName
    reference_sha256: Sha256
    samples: PositiveCount
    tensors: tuple[TensorDiff, ...]
    only_reference: tuple[Name, ...] = ()
    only_actual: tuple[Name, ...] = ()
    tag: Name = ""
    schema_version: int = LAYERS_SCHEMA

    @property
    def variant(self) -> Variant:
        """The artifact's variant."""
        return Variant(self.target, self.precision, self.tag)

    @property
    def reference_folder(self) -> str:
        """The name of the reference's folder, which is beside the artifact's."""
        return self.reference.replace(":", "-")

    @property
    def first(self) -> TensorDiff | None:
        """The first tensor at which the artifact diverges, or None."""
        return LayerwiseDiff(self.tensors, self.only_reference, self.only_actual).first

    @property
    def worst(self) -> TensorDiff | None:
        """The tensor with the lowest SQNR, or None if all are equal to the reference's."""
        different = [tensor for tensor in self.tensors if tensor.sqnr_db is not None]
        return min(different, key=lambda tensor: tensor.sqnr_db or 0.0, default=None)


def layers_of(artifact: Artifact) -> LayerErrors | None:
    """Read the `layers.json` beside an artifact.

    Args:
        artifact: The artifact.

    Returns:
        The record, or None if there is none, or if it is stale: the artifact or the reference has changed since.

    Raises:
        InputError: The file is damaged or of an unknown version.
    """
    path = artifact.folder / LAYERS_FILE
    if not path.is_file():
        return None
    layers = load_layers(path)
    return None if why_stale(artifact, layers) else layers


def why_stale(artifact: Artifact, layers: LayerErrors) -> str:
    """Explain why a record does not apply to the present files.

    Args:
        artifact: The artifact.
        layers: The record beside it.

    Returns:
        The reason, or an empty text if the record applies.
    """
    foreign = artifact.why_foreign(layers)
    if foreign:
        return foreign
    return "" if layers.reference_sha256 == _reference_sha256(artifact, layers) else "it is about another reference"


def _reference_sha256(artifact: Artifact, layers: LayerErrors) -> str | None:
    if layers.reference == SOURCE:
        return artifact.manifest.source.get("sha256")
    folder = artifact.folder.parent / layers.reference_folder
    try:
        return load_artifact(folder).manifest.sha256 if (folder / MANIFEST_FILE).is_file() else None
    except InputError:
        return None  # `edgekit verify` reports what is wrong with it


def to_dict(layers: LayerErrors) -> dict[str, Any]:
    """Encode a record as JSON values.

    Args:
        layers: The record.

    Returns:
        The JSON values, with None in place of infinity and NaN, which JSON cannot represent.
    """
    values: dict[str, Any] = finite(asdict(layers))
    return values


def finite(data: Any) -> Any:
    """Replace numbers that JSON cannot represent.

    Args:
        data: Mappings, sequences and plain values.

    Returns:
        The same data with None in place of infinity and NaN.
    """
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def load_layers(path: Path) -> LayerErrors:
    """Read a `layers.json`.

    Args:
        path: The file.

    Returns:
        The record.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    return layers_from_dict(read_json(path, "error by layer"), path)


def layers_from_dict(data: Any, path: Path) -> LayerErrors:
    """Decode a record.

    Args:
        data: What `to_dict` returned, after a round trip through JSON.
        path: The file that the data came from, for error messages.

    Returns:
        The record.

    Raises:
        InputError: The data are damaged or of an unknown version.
    """
    again = "run the diff again"
    if isinstance(data, dict) and data.get("schema_version") == 1 and isinstance(data.get("tensors"), list):
        data = {**data, "tensors": [_rename_divergence(tensor) for tensor in data["tensors"]]}
    return decode_versioned(LayerErrors, data, path, "an error by layer", again, version=LAYERS_SCHEMA, older=_OLDER)


def _rename_divergence(tensor: Any) -> Any:
    """Return a tensor of schema 1 with the present name of its divergence."""
    if not isinstance(tensor, dict):
        return tensor
    return {("divergence_db" if key == "leap_db" else key): value for key, value in tensor.items()}
