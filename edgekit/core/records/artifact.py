"""The artifact: a folder with the model file, `manifest.json` and golden samples, checkable anywhere by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json, sha256_file, write_json
from edgekit.core.errors import InputError
from edgekit.core.records import samples
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE
from edgekit.core.values.specs import PRECISIONS, TUNED, Signature, Variant

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """What the artifact is and how it came to be.

    `signature` is the file's own: a full-integer model has integer inputs with scale and zero point. `reproducible` is
    true when the same inputs, options and versions give the same bytes; else `not_reproducible_because` says why.
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
    schema_version: int = MANIFEST_SCHEMA

    @property
    def variant(self) -> Variant:
        """Target and precision in one, marked where a recipe made it."""
        recipe = isinstance(self.options.get("recipe"), Mapping)
        return Variant(self.target, self.precision, TUNED if recipe else "")


@dataclass(frozen=True)
class Artifact:
    """A folder and the manifest that was read from it."""

    folder: Path
    manifest: Manifest

    @property
    def path(self) -> Path:
        """The model file."""
        return self.folder / self.manifest.file

    @property
    def label(self) -> str:
        """`simple_cnn/keras tflite:int8`."""
        return f"{self.manifest.model}/{self.manifest.source['kind']} {self.manifest.variant}"

    def verified_path(self) -> Path:
        """The model file. Raises InputError when it is missing, empty, or not the one the manifest was written for."""
        if not self.path.is_file():
            raise InputError(f"{self.path}: the model file that {MANIFEST_FILE} names is missing")
        size = self.path.stat().st_size
        if size != self.manifest.size_bytes:
            raise InputError(
                f"{self.path}: the file has {size} bytes where {MANIFEST_FILE} says {self.manifest.size_bytes};"
                " it is truncated or was replaced"
            )
        if sha256_file(self.path) != self.manifest.sha256:
            raise InputError(
                f"{self.path}: the file is not the one that was exported: its sha256 differs from the manifest's"
            )
        return self.path

    def golden(self) -> Samples:
        """The golden samples. Raises InputError when the file is missing or damaged."""
        return samples.load(self.folder / GOLDEN_FILE, "golden samples")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json."""
    write_json(folder / MANIFEST_FILE, asdict(manifest))


def load_artifact(folder: Path) -> Artifact:
    """The artifact in the folder. Raises InputError with file and key when the manifest is not a good one."""
    path = folder / MANIFEST_FILE
    return Artifact(folder, manifest_from_dict(read_json(path, "manifest"), path))


def manifest_from_dict(data: Mapping[str, Any], path: Path) -> Manifest:
    """The inverse of `dataclasses.asdict` after a trip through JSON. Raises InputError that names file and key."""
    if data.get("schema_version") != MANIFEST_SCHEMA:
        raise InputError(
            f"{path}: schema_version is {data.get('schema_version')!r}; this edgekit reads {MANIFEST_SCHEMA}"
        )
    known = {item.name for item in fields(Manifest)}
    for key in sorted(set(data) - known):
        raise InputError(f"{path}: {key}: unknown key; allowed: {', '.join(sorted(known))}")
    _check_types(path, data)
    try:
        signature = Signature.from_dict(data["signature"])
        lists = {"route": tuple(data["route"]), "notes": tuple(data.get("notes", ()))}
        return Manifest(**{**data, **lists, "signature": signature})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: this manifest lacks or mistypes a key ({error})") from None


def _check_types(path: Path, data: Mapping[str, Any]) -> None:
    expected: dict[str, type] = dict.fromkeys(("model", "target", "precision", "runtime", "file", "sha256"), str)
    expected |= {"size_bytes": int, "source": dict, "route": list}
    optional = {"notes": list, "options": dict, "golden": dict, "versions": dict, "reproducible": bool}
    expected |= {key: kind for key, kind in optional.items() if key in data}
    if data.get("calibration") is not None:
        expected["calibration"] = dict
    for key, kind in expected.items():
        value = data.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{path}: {key}: must be a {kind.__name__} (got {value!r})")
    if not isinstance(data["source"].get("kind"), str):
        raise InputError(f"{path}: source.kind: must be a str (got {data['source'].get('kind')!r})")
    if data["precision"] not in PRECISIONS:
        raise InputError(f"{path}: precision: must be one of {', '.join(PRECISIONS)} (got {data['precision']!r})")
    if Path(data["file"]).name != data["file"]:
        raise InputError(f"{path}: file: must be a name in the artifact's folder (got {data['file']!r})")
    if data["size_bytes"] < 0:
        raise InputError(f"{path}: size_bytes: must not be negative (got {data['size_bytes']})")
