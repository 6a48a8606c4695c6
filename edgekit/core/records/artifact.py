"""The artifact: a folder with the model files, `manifest.json` and golden samples, verifiable by itself anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

from edgekit.core.environment.atomic_files import read_json, sha256_file, write_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.records import samples
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE
from edgekit.core.values.precisions import is_precision, precision_names
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.specs import TUNED, Signature, Variant
from edgekit.core.values.typed_json import (
    Count,
    FileName,
    Name,
    Pattern,
    PositiveCount,
    Sha256,
    decode,
    decode_any,
    show_value,
)

MANIFEST_SCHEMA = 2

# Schema 1 knew one file and had no list of files.
_READABLE_SCHEMAS = (1, MANIFEST_SCHEMA)

# A path below the artifact's folder, written in one way only: no `..`, no `.`, no empty part, no backslash.
_InnerPath = Annotated[
    str,
    Pattern(r"(?!/)(?:(?!\.{1,2}(?:/|$))[^/\\\0]{1,255}(?:/(?=.)|$)){1,32}", "a name in the artifact's folder"),
]
# What other stages read of the free-form parts of a manifest.
_KNOWN_PARTS: Mapping[str, Mapping[str, Any]] = {
    "source": {
        "kind": FileName,
        "sha256": Sha256 | None,
        "weights_sha256": Sha256 | None,
        "task": Name | None,
        "metric": Name | None,
        "metric_value": float | None,
        "size_bytes": Count | None,
        "parameters": Count | None,
        "notes": tuple[Name, ...],
        "rounding": Mapping[Name, Rounding],
        "state": tuple[Name, ...],
        "one_by_one": bool,
    },
    "golden": {"sha256": Sha256, "samples": Count, "synthetic": bool},
    "calibration": {"sha256": Sha256, "samples": PositiveCount, "synthetic": bool},
}


@dataclass(frozen=True)
class ArtifactFile:
    """One of an artifact's model files.

    Attributes:
        path: The path below the artifact's folder, with forward slashes.
        sha256: The hash of the content.
        size: The size in bytes.
    """

    path: _InnerPath
    sha256: Sha256
    size: Count


@dataclass(frozen=True)
class Manifest:
    """What the artifact is and how it was made.

    Attributes:
        model: The model's name.
        target: The target, such as `tflite`.
        precision: The precision, such as `int8`.
        runtime: The runtime that runs it by default.
        file: The main model file, the one that a runtime opens.
        sha256: The hash of the main file where that is the only one, else of the list of all files and their hashes.
        size_bytes: The size of all model files.
        signature: The file's own inputs and outputs: a full-integer model has integer inputs with scale and zero point.
        source: What is known of the source model, such as its `kind` and hash.
        route: The kinds that the conversion passed through, such as `("keras", "torch", "executorch")`.
        options: The options that were used, by name.
        calibration: How many calibration samples there were and their hash, and whether they were synthesized; or None.
        golden: How many golden samples there are and their hash, and whether they were synthesized.
        versions: The versions of the packages that converted it.
        notes: Notes for the reader.
        reproducible: Whether the same inputs, options and versions give the same bytes.
        not_reproducible_because: Why not, where they do not.
        files: All model files, the main one first.
    """

    model: FileName
    target: FileName
    precision: FileName
    runtime: FileName
    file: _InnerPath
    sha256: Sha256
    size_bytes: Count
    signature: Signature
    source: Mapping[str, Any]
    route: tuple[Name, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    golden: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[Name, Name] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reproducible: bool = True
    not_reproducible_because: str | None = None
    files: tuple[ArtifactFile, ...] = ()
    schema_version: int = MANIFEST_SCHEMA

    def __post_init__(self) -> None:
        if not self.files:  # an artifact of one file, as most are
            object.__setattr__(self, "files", (ArtifactFile(self.file, self.sha256, self.size_bytes),))

    @property
    def is_stateful(self) -> bool:
        """Whether calls of the source change its state, so that each sample is judged from the initial one."""
        return bool(self.source.get("state"))

    @property
    def rounding(self) -> Mapping[str, Rounding]:
        """The source's float32 rounding error by output, where it was measured."""
        values: Mapping[str, Rounding] = decode_any(
            Mapping[Name, Rounding], self.source.get("rounding", {}), "rounding"
        )
        return values

    @property
    def variant(self) -> Variant:
        """Target, precision, and the tag of a form or a recipe: the key of the artifact."""
        tuned = TUNED if isinstance(self.options.get("recipe"), Mapping) else ""
        return Variant(self.target, self.precision, "-".join(filter(None, (self.form.tag, tuned))))

    @property
    def synthetic(self) -> str:
        """What was done with samples that were synthesized from the network, such as `calibrated and compared`."""
        uses = {"calibrated": self.calibration, "compared": self.golden}
        return " and ".join(use for use, record in uses.items() if record and record.get("synthetic"))

    @property
    def form(self) -> QuantizationForm:
        """The form that the user asked for, beside the precision."""
        return QuantizationForm.from_dict(self.options.get("form", {}))


class ArtifactResult(Protocol):
    """A record of the result of a stage for one artifact."""

    @property
    def model(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def variant(self) -> Variant: ...

    @property
    def artifact_sha256(self) -> str: ...


@dataclass(frozen=True)
class Artifact:
    """A folder and the manifest that was read from it."""

    folder: Path
    manifest: Manifest

    @property
    def path(self) -> Path:
        """The main model file."""
        return self.folder / self.manifest.file

    @property
    def paths(self) -> tuple[Path, ...]:
        """All model files, the main one first."""
        return tuple(self.folder / file.path for file in self.manifest.files)

    @property
    def label(self) -> str:
        """The artifact's name for people, such as `simple_cnn/keras tflite:int8`."""
        return f"{self.manifest.model}/{self.manifest.source['kind']} {self.manifest.variant}"

    def why_foreign(self, result: ArtifactResult) -> str:
        """Explain why a result is not about this artifact.

        Args:
            result: A record from the artifact's folder.

        Returns:
            The reason as a clause, or an empty text if the result is about the present model files.
        """
        title = f"{result.model}/{result.kind} {result.variant}"
        if title != self.label:
            return f"it is about {title}"
        return "" if result.artifact_sha256 == self.manifest.sha256 else "it is about an earlier model file"

    def verified_path(self) -> Path:
        """Return the main model file after checking all of them.

        Raises:
            InputError: A file is missing, or not the one that the manifest was written for.
        """
        for file in self.manifest.files:
            self._verify(file)
        return self.path

    def _verify(self, file: ArtifactFile) -> None:
        path = self.folder / file.path
        if not path.is_file():
            raise InputError(f"{path}: the model file that {MANIFEST_FILE} names is missing")
        size = path.stat().st_size
        if size != file.size:
            raise InputError(
                f"{path}: the file has {size} bytes where {MANIFEST_FILE} says {file.size};"
                " it is truncated or was replaced"
            )
        if sha256_file(path) != file.sha256:
            raise InputError(
                f"{path}: the file is not the one that was exported: its sha256 differs from the manifest's"
            )

    def golden(self) -> Samples:
        """Load the golden samples. Raises InputError when the file is missing or damaged."""
        return samples.load(self.folder / GOLDEN_FILE, "golden samples")


def describe_files(folder: Path, paths: Iterable[str]) -> tuple[ArtifactFile, ...]:
    """Read the size and hash of files below a folder, once each."""
    return tuple(ArtifactFile(path, sha256_file(folder / path), (folder / path).stat().st_size) for path in paths)


def files_sha256(files: tuple[ArtifactFile, ...]) -> str:
    """Return the hash that stands for all files: of one file its own, of several that of `<sha256>  <path>` lines."""
    if len(files) == 1:
        return files[0].sha256
    lines = "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    write_json(folder / MANIFEST_FILE, asdict(manifest))


def load_artifact(folder: Path) -> Artifact:
    """Load the artifact of a folder.

    Raises:
        InputError: The manifest is missing or invalid; the message names file and key.
    """
    path = folder / MANIFEST_FILE
    return Artifact(folder, manifest_from_dict(read_json(path, "manifest"), path))


def manifest_from_dict(data: Any, path: Path) -> Manifest:
    """Build a manifest of the parsed JSON, of this schema or of schema 1.

    Raises:
        InputError: A key is missing, unknown or of another type; the message names file and key.
    """
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a manifest")
    version = data.get("schema_version")
    if type(version) is not int or version not in _READABLE_SCHEMAS:
        raise InputError(f"{path}: schema_version is {show_value(version)}; this edgekit reads 1 to {MANIFEST_SCHEMA}")
    if version == 1 and "files" in data:
        raise InputError(f"{path}: files: unknown key; schema 1 has none")
    manifest = decode(Manifest, {**data, "schema_version": MANIFEST_SCHEMA}, path)
    for part, known in _KNOWN_PARTS.items():
        values = getattr(manifest, part) or {}
        for key in known.keys() & values.keys():
            decode_any(known[key], values[key], f"{path}: {part}.{key}")
    _check_consistency(path, manifest)
    if version != 1:
        _check_files(path, data, manifest)
    return manifest


def _check_consistency(path: Path, manifest: Manifest) -> None:
    if "kind" not in manifest.source:
        raise InputError(f"{path}: source.kind: this key is missing")
    if not isinstance(manifest.options.get("form", {}), Mapping):
        raise InputError(f"{path}: options.form: must be an object")
    try:
        _ = manifest.form
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not is_precision(manifest.precision):
        raise InputError(
            f"{path}: precision: must be one of {', '.join(precision_names())} (got {manifest.precision!r})"
        )
    for side, specs in (("inputs", manifest.signature.inputs), ("outputs", manifest.signature.outputs)):
        if not specs:
            raise InputError(f"{path}: signature.{side}: must name at least one tensor")


def _check_files(path: Path, data: Mapping[str, Any], manifest: Manifest) -> None:
    listed = manifest.files if data.get("files") else ()
    if not listed or listed[0].path != manifest.file:
        raise InputError(f"{path}: files: the first one must be the main file {manifest.file!r}")
    if len({file.path for file in listed}) != len(listed):
        raise InputError(f"{path}: files: a path is listed twice")
    if files_sha256(listed) != manifest.sha256:
        raise InputError(f"{path}: sha256: must be the digest of the listed files (got {manifest.sha256!r})")
    total = sum(file.size for file in listed)
    if total != manifest.size_bytes:
        raise InputError(
            f"{path}: size_bytes: must be the sum of the sizes of the files, {total} (got {manifest.size_bytes!r})"
        )
