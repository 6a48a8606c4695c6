"""The error of an artifact layer by layer, kept beside it with what it was found on: a stale one is recognised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.layerwise_diff import LayerwiseDiff, TensorDiff
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.specs import Variant

LAYERS_SCHEMA = 2
_OLDER = {1: {"how": "tag"}}
LAYERS_FILE = "layers.json"
SOURCE = "source"
"""The name of the reference that is the source which the artifact was made from."""


@dataclass(frozen=True)
class LayerErrors:
    """What `edgekit diff` found out about an artifact on so many golden samples.

    `reference` is `source`, or the variant of the float32 artifact beside it that it was compared with.
    """

    model: str
    kind: str
    target: str
    precision: str
    artifact_sha256: str
    reference: str
    reference_sha256: str
    samples: int
    tensors: tuple[TensorDiff, ...]
    only_reference: tuple[str, ...] = ()
    only_actual: tuple[str, ...] = ()
    tag: str = ""
    schema_version: int = LAYERS_SCHEMA

    @property
    def variant(self) -> Variant:
        """Target and precision in one, marked where a recipe made it."""
        return Variant(self.target, self.precision, self.tag)

    @property
    def reference_folder(self) -> str:
        """The name of the folder beside the artifact's that the reference stands in."""
        return self.reference.replace(":", "-")

    @property
    def first(self) -> TensorDiff | None:
        """The first tensor where the error leaps."""
        return LayerwiseDiff(self.tensors, self.only_reference, self.only_actual).first

    @property
    def worst(self) -> TensorDiff | None:
        """The tensor of the lowest SQNR; None where all are equal to the reference's."""
        known = [item for item in self.tensors if item.sqnr_db is not None]
        return min(known, key=lambda item: item.sqnr_db or 0.0, default=None)


def layers_of(artifact: Artifact) -> LayerErrors | None:
    """What stands beside the artifact; None where nothing does, or where it is about other files than those there are.

    Raises InputError when it is damaged.
    """
    path = artifact.folder / LAYERS_FILE
    if not path.is_file():
        return None
    found = load_layers(path)
    return None if why_stale(artifact, found) else found


def why_stale(artifact: Artifact, layers: LayerErrors) -> str:
    """Why the figures are not about the artifact and the reference as they are; empty when they are."""
    if layers.artifact_sha256 != artifact.manifest.sha256:
        return "it is about another model file"
    return "" if layers.reference_sha256 == _reference_sha256(artifact, layers) else "it is about another reference"


def _reference_sha256(artifact: Artifact, layers: LayerErrors) -> str | None:
    if layers.reference == SOURCE:
        return artifact.manifest.source.get("sha256")
    folder = artifact.folder.parent / layers.reference_folder
    try:
        return load_artifact(folder).manifest.sha256 if (folder / MANIFEST_FILE).is_file() else None
    except InputError:
        return None  # verify tells what is wrong with it


def to_dict(layers: LayerErrors) -> dict[str, Any]:
    """For JSON, which has neither infinity nor NaN: null stands for them."""
    made: dict[str, Any] = finite(asdict(layers))
    return made


def finite(data: Any) -> Any:
    """Plain data with None in the place of numbers that JSON does not have."""
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def load_layers(path: Path) -> LayerErrors:
    """The figures in the file. Raises InputError when it is damaged or of another version."""
    return layers_from_dict(read_json(path, "error by layer"), path)


def layers_from_dict(data: Any, path: Path) -> LayerErrors:
    """The inverse of `to_dict` after a trip through JSON. Raises InputError that names the file."""
    keys = {item.name for item in fields(LayerErrors)}
    with decode_versioned(
        data, path, "an error by layer", "run the diff again", keys=keys, version=LAYERS_SCHEMA, older=_OLDER
    ) as given:
        made: dict[str, Any] = {name: tuple(given[name]) for name in ("only_reference", "only_actual")}
        return LayerErrors(**{**given, **made, "tensors": tuple(_tensor(item) for item in given["tensors"])})


def _tensor(data: Mapping[str, Any]) -> TensorDiff:
    ranges = {name: tuple(map(_restored, data[name])) for name in ("reference_range", "actual_range")}
    figures = {name: _restored(data[name]) for name in ("cosine", "max_abs_error")}
    renamed = {("divergence_db" if key == "leap_db" else key): value for key, value in data.items()}  # schema 1
    return TensorDiff(**{**renamed, **figures, **ranges, "shape": tuple(data["shape"])})


def _restored(value: float | None) -> float:
    return math.nan if value is None else value
