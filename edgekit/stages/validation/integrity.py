"""The verify stage: checks the files of artifacts and sources against their manifests, without running anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgekit.core.environment.atomic_files import STAGING_PREFIX, read_json, sha256_path, size_of
from edgekit.core.environment.project import holds_artifact
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import EmulationRecord, emulation_file, load_emulation
from edgekit.core.records.layer_errors import LAYERS_FILE, load_layers, why_stale
from edgekit.core.records.measurement import Measurement, load_measurement
from edgekit.core.records.runtime_versions import RuntimeVersions, load_runtime_versions, runtime_versions_file
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.records.validation import Validation, load_validation
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, MANIFEST_FILE, SOURCE_FILE, TEST_FILE
from edgekit.core.values.quantization_recipe import RECIPE_FILE
from edgekit.stages.conversion.sbom import SBOM_FILE, describes

CHANGED, MISSING, DAMAGED, UNLISTED, OUTDATED = "changed", "missing", "damaged", "unlisted", "outdated"
# The states that fail the check. The others are only reported: unlisted files, and results of an earlier model file.
BROKEN = (CHANGED, MISSING, DAMAGED)

# Files that stages write next to an artifact without listing them in its manifest.
_RESULTS = (
    "validation*.json",
    "bench-*.json",
    emulation_file("*"),
    runtime_versions_file("*"),
    CHECK_FILE,
    "flips.npz",
    LAYERS_FILE,
)
# The name of a source's folder.
_SOURCE = "source"
_SAMPLES = (GOLDEN_FILE, CALIBRATION_FILE, TEST_FILE)


@dataclass(frozen=True)
class IntegrityFinding:
    """A difference between a file and its manifest.

    Attributes:
        path: The file or folder.
        state: `changed`, `missing`, `damaged`, `unlisted` or `outdated`.
        detail: The difference in words.
    """

    path: Path
    state: str
    detail: str

    @property
    def broken(self) -> bool:
        """Whether the finding fails the check."""
        return self.state in BROKEN


@dataclass(frozen=True)
class Verification:
    """The result of a check.

    Attributes:
        artifacts: The artifact folders that were checked.
        sources: The source folders that were checked.
        files: The number of files in these folders.
        findings: The differences.
    """

    artifacts: tuple[Path, ...]
    sources: tuple[Path, ...]
    files: int
    findings: tuple[IntegrityFinding, ...]

    @property
    def broken(self) -> tuple[IntegrityFinding, ...]:
        """The findings that fail the check."""
        return tuple(finding for finding in self.findings if finding.broken)


def verify(folder: Path) -> Verification:
    """Check every artifact and source in a folder and below; all files are hashed again.

    Args:
        folder: The folder.

    Raises:
        InputError: The folder does not exist, or contains neither an artifact nor a source.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    unreadable: list[IntegrityFinding] = []
    folders = list(_folders(folder, unreadable))
    artifacts = tuple(path for path, names in folders if path.name != _SOURCE and holds_artifact(names))
    sources = tuple(path for path, names in folders if SOURCE_FILE in names or _is_bare_source(path, names))
    if not artifacts and not sources and not unreadable:
        raise InputError(f"{folder}: contains no artifact; run: edgekit export")
    findings = [*unreadable]
    findings += [finding for path in artifacts for finding in _guarded(path, _check_artifact)]
    findings += [finding for path in sources for finding in _guarded(path, _check_source)]
    checked = (*artifacts, *sources)
    files = sum(len(names) for path, names in folders if any(path.is_relative_to(base) for base in checked))
    return Verification(artifacts, sources, files, tuple(findings))


def _folders(folder: Path, unreadable: list[IntegrityFinding]) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder and those below it with the names of their files, except for those of a running export.

    What cannot be read is added to `unreadable`: a check does not pass on files that it has not seen.
    """

    def report(error: OSError) -> None:
        unreadable.append(_unreadable(Path(str(error.filename)), error))

    for path, folders, names in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith(STAGING_PREFIX))
        files = []
        for name in sorted(names):
            try:
                mode = os.stat(os.path.join(path, name)).st_mode  # noqa: PTH116, PTH118 - once for each of many files
            except OSError as error:
                unreadable.append(_unreadable(Path(path, name), error))
            else:
                files += [name] if stat.S_ISREG(mode) else []
        yield Path(path), files


def _unreadable(path: Path, error: OSError) -> IntegrityFinding:
    return IntegrityFinding(path, DAMAGED, f"cannot be read: {(error.strerror or str(error)).lower()}")


def _is_bare_source(folder: Path, names: Collection[str]) -> bool:
    """Return whether a folder has the samples of a source whose description is missing."""
    return folder.name == _SOURCE and MANIFEST_FILE not in names and not set(_SAMPLES).isdisjoint(names)


def _guarded(folder: Path, check: Callable[[Path], Iterator[IntegrityFinding]]) -> Iterator[IntegrityFinding]:
    try:
        yield from check(folder)
    except OSError as error:
        yield _unreadable(Path(str(error.filename or folder)), error)


def _check_artifact(folder: Path) -> Iterator[IntegrityFinding]:
    if not (folder / MANIFEST_FILE).exists():
        yield IntegrityFinding(folder / MANIFEST_FILE, MISSING, "the folder has the results of an artifact")
        return
    try:
        artifact = load_artifact(folder)
    except InputError as error:
        yield IntegrityFinding(folder / MANIFEST_FILE, DAMAGED, _reason(error, folder / MANIFEST_FILE))
        return
    manifest = artifact.manifest
    for file in manifest.files:
        yield from _check_hash(folder / file.path, file.sha256, file.size, MANIFEST_FILE)
    yield from _check_golden(artifact)
    yield from _check_results(artifact)
    yield from _check_origin(artifact)
    yield from _check_sbom(artifact)
    yield from _check_unlisted(folder, _listed_names(artifact), _RESULTS)


def _check_hash(path: Path, sha256: str, size_bytes: int | None, manifest: str) -> Iterator[IntegrityFinding]:
    if not path.exists():
        yield IntegrityFinding(path, MISSING, f"listed in {manifest}")
        return
    size = size_of(path)
    if size_bytes is not None and size != size_bytes:
        yield IntegrityFinding(path, CHANGED, f"has {size} bytes, but {manifest} records {size_bytes}")
    elif (actual := sha256_path(path)) != sha256:
        yield IntegrityFinding(path, CHANGED, f"has sha256 {actual[:12]}…, but {manifest} records {sha256[:12]}…")


def _check_golden(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Check the digest of the arrays: the manifest records no hash of the file."""
    path, recorded = artifact.folder / GOLDEN_FILE, artifact.manifest.golden.get("sha256")
    if recorded is None:
        return
    if not path.is_file():
        yield IntegrityFinding(path, MISSING, f"listed in {MANIFEST_FILE}")
        return
    try:
        actual = artifact.golden().digest()
    except InputError as error:
        yield IntegrityFinding(path, DAMAGED, _reason(error, path))
        return
    if actual != recorded:
        detail = f"its samples have sha256 {actual[:12]}…, but {MANIFEST_FILE} records {str(recorded)[:12]}…"
        yield IntegrityFinding(path, CHANGED, detail)


def _check_results(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Report results that cannot be read, or that describe an earlier model file."""
    for pattern, load, command in (
        ("validation*.json", load_validation, "validate"),
        ("bench-*.json", load_measurement, "bench"),
        (emulation_file("*"), load_emulation, "bench"),
        (runtime_versions_file("*"), load_runtime_versions, "bench"),
    ):
        for path in sorted(artifact.folder.glob(pattern)):
            try:
                result = load(path)
            except InputError as error:
                yield IntegrityFinding(path, DAMAGED, _reason(error, path))
                continue
            foreign = _why_foreign(artifact, result)
            if foreign:
                yield IntegrityFinding(path, OUTDATED, f"{foreign}; run: edgekit {command}")

    path = artifact.folder / LAYERS_FILE
    if path.exists():
        try:
            reason = why_stale(artifact, load_layers(path))
        except InputError as error:
            yield IntegrityFinding(path, DAMAGED, _reason(error, path))
        else:
            if reason:
                yield IntegrityFinding(path, OUTDATED, f"{reason}; run: edgekit diff")


def _why_foreign(artifact: Artifact, result: Validation | Measurement | EmulationRecord | RuntimeVersions) -> str:
    if not isinstance(result, EmulationRecord | RuntimeVersions):
        return artifact.why_foreign(result)
    return "" if result.artifact_sha256 == artifact.manifest.sha256 else "it is about an earlier model file"


def _check_sbom(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Check that a bill of materials describes this model file."""
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


def _check_origin(artifact: Artifact) -> Iterator[IntegrityFinding]:
    """Check that the artifact was exported from the source next to it."""
    folder = artifact.folder.parent / "source"
    source = _try_load_source(folder) if (folder / SOURCE_FILE).is_file() else None
    if source is not None and artifact.manifest.source.get("sha256") not in (None, source.sha256):
        detail = "it was exported from an earlier source; run: edgekit export"
        yield IntegrityFinding(artifact.folder, OUTDATED, detail)


def _try_load_source(folder: Path) -> SourceModel | None:
    try:
        return load_source(folder)
    except InputError:
        return None  # `_check_source` reports it


def _check_source(folder: Path) -> Iterator[IntegrityFinding]:
    if not (folder / SOURCE_FILE).exists():
        yield IntegrityFinding(folder / SOURCE_FILE, MISSING, "the folder has the samples of a source model")
        return
    try:
        source = load_source(folder)
    except InputError as error:
        yield IntegrityFinding(folder / SOURCE_FILE, DAMAGED, _reason(error, folder / SOURCE_FILE))
        return
    yield from _check_hash(folder / source.file, source.sha256, None, SOURCE_FILE)
    yield from _check_unlisted(folder, {source.file, SOURCE_FILE, *_SAMPLES}, ())


def _listed_names(artifact: Artifact) -> set[str]:
    """Return the names of the entries that belong to the artifact's folder."""
    manifest = artifact.manifest
    names = {MANIFEST_FILE, GOLDEN_FILE, SBOM_FILE, *(PurePosixPath(file.path).parts[0] for file in manifest.files)}
    return names | ({RECIPE_FILE} if manifest.variant.is_tuned else set())


def _check_unlisted(folder: Path, names: set[str], patterns: tuple[str, ...]) -> Iterator[IntegrityFinding]:
    for path in sorted(folder.iterdir()):
        if path.name not in names and not any(path.match(pattern) for pattern in patterns):
            yield IntegrityFinding(path, UNLISTED, "not listed in a manifest")


def _reason(error: InputError, path: Path) -> str:
    """Return an error's message without the path, which the finding already has."""
    return str(error).removeprefix(f"{path}: ")
