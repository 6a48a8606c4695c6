"""The verify stage: every artifact and every source against what its manifest says. Nothing is run, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgekit.core.environment.atomic_files import STAGING_PREFIX, read_json, sha256_path, size_of
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import emulation_file, load_emulation
from edgekit.core.records.layer_errors import LAYERS_FILE, load_layers, why_stale
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.records.validation import load_validation
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, MANIFEST_FILE, SOURCE_FILE, TEST_FILE
from edgekit.core.values.quantization_recipe import RECIPE_FILE
from edgekit.core.values.specs import TUNED
from edgekit.stages.conversion.sbom import SBOM_FILE, describes

CHANGED, MISSING, DAMAGED, UNLISTED, OUTDATED = "changed", "missing", "damaged", "unlisted", "outdated"
BROKEN = (CHANGED, MISSING, DAMAGED)
"""What no build folder may have. The others are told: files that no manifest lists, results about an earlier file."""

_RESULTS = ("validation*.json", "bench-*.json", emulation_file("*"), CHECK_FILE, "flips.npz", LAYERS_FILE)
_SAMPLES = (GOLDEN_FILE, CALIBRATION_FILE, TEST_FILE)


@dataclass(frozen=True)
class IntegrityFinding:
    """Something about a file that is not as its manifest says."""

    path: Path
    state: str
    detail: str

    @property
    def broken(self) -> bool:
        """Whether what was shipped is not what was made."""
        return self.state in BROKEN


@dataclass(frozen=True)
class Verification:
    """What was looked at, by folder, and what was found."""

    artifacts: tuple[Path, ...]
    sources: tuple[Path, ...]
    files: int
    findings: tuple[IntegrityFinding, ...]

    @property
    def broken(self) -> tuple[IntegrityFinding, ...]:
        """The findings that make the check fail."""
        return tuple(finding for finding in self.findings if finding.broken)


def verify(folder: Path) -> Verification:
    """Every artifact and source in the folder and below, hashed anew.

    Raises InputError when the folder does not exist, and when there is neither in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    artifacts = tuple(path.parent for path in _found(folder, MANIFEST_FILE))
    sources = tuple(path.parent for path in _found(folder, SOURCE_FILE))
    if not artifacts and not sources:
        raise InputError(f"{folder}: there is no artifact in it; run: edgekit export")
    findings = [*(item for path in artifacts for item in _artifact(path))]
    findings += [item for path in sources for item in _source(path)]
    files = sum(1 for path in (*artifacts, *sources) for item in path.rglob("*") if item.is_file())
    return Verification(artifacts, sources, files, tuple(findings))


def _found(folder: Path, name: str) -> list[Path]:
    """The files of that name, in order; what a running export is about to put in place is left alone."""
    return [
        path for path in sorted(folder.rglob(name)) if not any(part.startswith(STAGING_PREFIX) for part in path.parts)
    ]


def _artifact(folder: Path) -> Iterator[IntegrityFinding]:
    try:
        artifact = load_artifact(folder)
    except InputError as error:
        yield IntegrityFinding(folder / MANIFEST_FILE, DAMAGED, _reason(error, folder / MANIFEST_FILE))
        return
    manifest = artifact.manifest
    for file in manifest.files:
        yield from _hashed(folder / file.path, file.sha256, file.size, MANIFEST_FILE)
    yield from _golden(artifact)
    yield from _results(artifact)
    yield from _origin(artifact)
    yield from _bill(artifact)
    yield from _unlisted(folder, _listed_names(artifact), _RESULTS)


def _hashed(path: Path, sha256: str, size_bytes: int | None, said_in: str) -> Iterator[IntegrityFinding]:
    if not path.exists():
        yield IntegrityFinding(path, MISSING, f"{said_in} lists it")
        return
    size = size_of(path)
    if size_bytes is not None and size != size_bytes:
        yield IntegrityFinding(path, CHANGED, f"{size} bytes where {said_in} says {size_bytes}")
    elif (actual := sha256_path(path)) != sha256:
        yield IntegrityFinding(path, CHANGED, f"sha256 {actual[:12]}… where {said_in} says {sha256[:12]}…")


def _golden(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """By the digest of the arrays, which is what the manifest has."""
    path, wanted = artifact.folder / GOLDEN_FILE, artifact.manifest.golden.get("sha256")
    if wanted is None:
        return
    if not path.is_file():
        yield IntegrityFinding(path, MISSING, f"{MANIFEST_FILE} lists it")
        return
    try:
        actual = artifact.golden().digest()
    except InputError as error:
        yield IntegrityFinding(path, DAMAGED, _reason(error, path))
        return
    if actual != wanted:
        yield IntegrityFinding(
            path, CHANGED, f"samples of sha256 {actual[:12]}… where {MANIFEST_FILE} says {str(wanted)[:12]}…"
        )


def _results(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Validations and benches that cannot be read, or that were made of an earlier file."""
    for pattern, load, again in (
        ("validation*.json", load_validation, "validate"),
        ("bench-*.json", load_measurement, "bench"),
        (emulation_file("*"), load_emulation, "bench"),
    ):
        for path in sorted(artifact.folder.glob(pattern)):
            try:
                result = load(path)
            except InputError as error:
                yield IntegrityFinding(path, DAMAGED, _reason(error, path))
                continue
            if result.artifact_sha256 != artifact.manifest.sha256:
                yield IntegrityFinding(path, OUTDATED, f"it is about another model file; run: edgekit {again}")

    path = artifact.folder / LAYERS_FILE
    if path.exists():
        try:
            reason = why_stale(artifact, load_layers(path))
        except InputError as error:
            yield IntegrityFinding(path, DAMAGED, _reason(error, path))
        else:
            if reason:
                yield IntegrityFinding(path, OUTDATED, f"{reason}; run: edgekit diff")


def _bill(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Whether the bill of materials, where there is one, is about this model file."""
    path = artifact.folder / SBOM_FILE
    if not path.exists():
        return
    try:
        document = read_json(path, "bill of materials")
    except InputError as error:
        yield IntegrityFinding(path, DAMAGED, _reason(error, path))
        return
    if artifact.manifest.sha256 not in describes(document):
        yield IntegrityFinding(path, OUTDATED, "it is about another model file; run: edgekit export --sbom")


def _origin(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Whether the source beside the artifact is still the one that it was made from."""
    folder = artifact.folder.parent / "source"
    source = _load(folder) if (folder / SOURCE_FILE).is_file() else None
    if source is not None and artifact.manifest.source.get("sha256") not in (None, source.sha256):
        yield IntegrityFinding(artifact.folder, OUTDATED, "it was made from an earlier source; run: edgekit export")


def _load(folder: Path) -> SourceModel | None:
    try:
        return load_source(folder)
    except InputError:
        return None  # told where the source itself is looked at


def _source(folder: Path) -> Iterator[IntegrityFinding]:
    try:
        source = load_source(folder)
    except InputError as error:
        yield IntegrityFinding(folder / SOURCE_FILE, DAMAGED, _reason(error, folder / SOURCE_FILE))
        return
    yield from _hashed(folder / source.file, source.sha256, None, SOURCE_FILE)
    yield from _unlisted(folder, {source.file, SOURCE_FILE, *_SAMPLES}, ())


def _listed_names(artifact: Artifact) -> set[str]:
    """The entries of the artifact's folder that its manifest accounts for."""
    manifest = artifact.manifest
    names = {MANIFEST_FILE, GOLDEN_FILE, SBOM_FILE, *(PurePosixPath(file.path).parts[0] for file in manifest.files)}
    return names | ({RECIPE_FILE} if manifest.variant.tag == TUNED else set())


def _unlisted(folder: Path, known: set[str], patterns: tuple[str, ...]) -> Iterator[IntegrityFinding]:
    for path in sorted(folder.iterdir()):
        if path.name not in known and not any(path.match(pattern) for pattern in patterns):
            yield IntegrityFinding(path, UNLISTED, "no manifest lists it")


def _reason(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
