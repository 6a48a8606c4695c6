"""The artifact: a folder with the model files, `manifest.json` and golden samples, verifiable by itself anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.core.environment.atomic_files import read_json, sha256_file, write_json
from edgekit.core.errors import InputError
from edgekit.core.records import samples
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE
from edgekit.core.values.precisions import is_precision, precision_names
from edgekit.core.values.specs import TUNED, Signature, Variant

MANIFEST_SCHEMA = 2

# Schema 1 knew one file and had no list of files.
_READABLE_SCHEMAS = (1, MANIFEST_SCHEMA)


@dataclass(frozen=True)
class ArtifactFile:
    """One of an artifact's model files.

    Attributes:
        path: The path below the artifact's folder, with forward slashes.
        sha256: The hash of the content.
        size: The size in bytes.
    """

    path: str
    sha256: str
    size: int


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
        calibration: How many calibration samples there were and their hash, or None.
        golden: How many golden samples there are and their hash.
        versions: The versions of the packages that converted it.
        notes: Notes for the reader.
        reproducible: Whether the same inputs, options and versions give the same bytes.
        not_reproducible_because: Why not, where they do not.
        files: All model files, the main one first.
    """

    model: str
    target: str
    precision: str
    runtime: str
    file: str
    sha256: str
    size_bytes: int
    signature: Signature
    source: Mapping[str, Any]
    route: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    golden: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reproducible: bool = True
    not_reproducible_because: str | None = None
    files: tuple[ArtifactFile, ...] = ()
    schema_version: int = MANIFEST_SCHEMA

    def __post_init__(self) -> None:
        if not self.files:  # an artifact of one file, as most are
            object.__setattr__(self, "files", (ArtifactFile(self.file, self.sha256, self.size_bytes),))

    @property
    def variant(self) -> Variant:
        """Target, precision and the tag of an artifact that a recipe made: the key of the artifact."""
        recipe = isinstance(self.options.get("recipe"), Mapping)
        return Variant(self.target, self.precision, TUNED if recipe else "")


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


def manifest_from_dict(data: Mapping[str, Any], path: Path) -> Manifest:
    """Build a manifest of the parsed JSON, of this schema or of schema 1.

    Raises:
        InputError: A key is missing, unknown or of another type; the message names file and key.
    """
    version = data.get("schema_version")
    if isinstance(version, bool) or version not in _READABLE_SCHEMAS:
        raise InputError(f"{path}: schema_version is {version!r}; this edgekit reads 1 to {MANIFEST_SCHEMA}")
    known = {item.name for item in fields(Manifest)} - ({"files"} if version == 1 else set())
    for key in sorted(set(data) - known):
        raise InputError(f"{path}: {key}: unknown key; allowed: {', '.join(sorted(known))}")
    _check_types(path, data)
    try:
        decoded = {
            "route": tuple(data["route"]),
            "notes": tuple(data.get("notes", ())),
            "signature": Signature.from_dict(data["signature"]),
            "files": _files(path, data) if version != 1 else (),
            "schema_version": MANIFEST_SCHEMA,
        }
        return Manifest(**{**data, **decoded})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: this manifest has a missing or mistyped key ({error})") from None


def _check_types(path: Path, data: Mapping[str, Any]) -> None:
    expected: dict[str, type] = dict.fromkeys(("model", "target", "precision", "runtime", "file", "sha256"), str)
    expected |= {"size_bytes": int, "source": dict, "route": list}
    optional = {
        "notes": list,
        "options": dict,
        "golden": dict,
        "versions": dict,
        "reproducible": bool,
        "files": list,
    }
    expected |= {key: kind for key, kind in optional.items() if key in data}
    if data.get("calibration") is not None:
        expected["calibration"] = dict
    for key, kind in expected.items():
        value = data.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{path}: {key}: must be a {kind.__name__} (got {value!r})")
    if not isinstance(data["source"].get("kind"), str):
        raise InputError(f"{path}: source.kind: must be a str (got {data['source'].get('kind')!r})")
    if not is_precision(data["precision"]):
        raise InputError(
            f"{path}: precision: must be one of {', '.join(precision_names())} (got {data['precision']!r})"
        )
    if not _stays_inside(data["file"]):
        raise InputError(f"{path}: file: must be a name in the artifact's folder (got {data['file']!r})")
    if data["size_bytes"] < 0:
        raise InputError(f"{path}: size_bytes: must not be negative (got {data['size_bytes']})")


def _files(path: Path, data: Mapping[str, Any]) -> tuple[ArtifactFile, ...]:
    files = []
    for index, entry in enumerate(data["files"]):
        where = f"{path}: files.{index}"
        if not isinstance(entry, dict) or set(entry) != {"path", "sha256", "size"}:
            raise InputError(f"{where}: must have the keys path, sha256, size (got {entry!r})")
        file_path, sha256, size = entry["path"], entry["sha256"], entry["size"]
        if not isinstance(file_path, str) or not _stays_inside(file_path):
            raise InputError(f"{where}.path: must be a name in the artifact's folder (got {file_path!r})")
        if not isinstance(sha256, str):
            raise InputError(f"{where}.sha256: must be a str (got {sha256!r})")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(f"{where}.size: must be an int that is not negative (got {size!r})")
        files.append(ArtifactFile(file_path, sha256, size))
    listed = tuple(files)
    if not listed or listed[0].path != data["file"]:
        raise InputError(f"{path}: files: the first one must be the main file {data['file']!r}")
    if len({file.path for file in listed}) != len(listed):
        raise InputError(f"{path}: files: a path is listed twice")
    if files_sha256(listed) != data["sha256"]:
        raise InputError(f"{path}: sha256: must be the digest of the listed files (got {data['sha256']!r})")
    total = sum(file.size for file in listed)
    if total != data["size_bytes"]:
        raise InputError(
            f"{path}: size_bytes: must be the sum of the sizes of the files, {total} (got {data['size_bytes']!r})"
        )
    return listed


def _stays_inside(text: str) -> bool:
    """Whether a path from a file names something below the artifact's folder, in one way only."""
    path = PurePosixPath(text)
    return (
        bool(text)
        and "\\" not in text
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == text
        and text != "."
    )
