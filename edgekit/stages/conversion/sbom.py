"""A software bill of materials in CycloneDX 1.6: source, data and packages of an artifact, by hash and version.

The document depends only on the manifest, on source.json and on the installed packages, so that it is reproducible: it
has no time stamp, and its serial number is a hash of its contents. Field names follow the CycloneDX 1.6 JSON schema
(ECMA-424).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgekit._version import __version__
from edgekit.core.environment.atomic_files import to_json, write_json
from edgekit.core.environment.distributions import InstalledDistribution, installed_distributions, normalize
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import TensorSpec

SBOM_FILE = "sbom.cdx.json"
# References between the components of one document.
_ARTIFACT, _SOURCE, _TRAINING, _CALIBRATION, _GOLDEN = (
    "artifact",
    "source",
    "data:training",
    "data:calibration",
    "data:golden",
)

_Component = dict[str, Any]


def write_sbom(artifact: Artifact) -> Path:
    """Write the bill of materials of an artifact next to its model file.

    Args:
        artifact: The artifact.

    Returns:
        The path of the document.

    Raises:
        InputError: The description of the source is damaged, or the folder cannot be written.
        DiskFull: There is no space left.
    """
    folder = artifact.folder.parent / "source"
    source = load_source(folder) if (folder / SOURCE_FILE).is_file() else None
    if source is not None and source.sha256 != artifact.manifest.source.get("sha256"):
        source = None  # the model was trained again since: this is not the source of the artifact
    path = artifact.folder / SBOM_FILE
    write_json(path, sbom(artifact, source, installed_distributions()))
    return path


def sbom(
    artifact: Artifact, source: SourceModel | None, environment: Sequence[InstalledDistribution] = ()
) -> dict[str, Any]:
    """Build the bill of materials of an artifact.

    Args:
        artifact: The artifact.
        source: The description of its source; None limits the document to what the manifest says of it.
        environment: The installed packages, all of which are listed. Those that took part get their hash and licence
            from here if the version is the same.

    Returns:
        The document, ready for JSON.
    """
    installed = {normalize(distribution.name): distribution for distribution in environment}
    converting = _packages(artifact.manifest.versions, installed)
    training = _packages(source.versions, installed) if source is not None else {}
    others = {} if not environment else _environment(environment, {*converting, *training})
    datasets = _datasets(artifact, source)
    components = [
        _source_component(artifact),
        *datasets,
        *({**converting, **training}[ref] for ref in sorted({*converting, *training})),
        *(others[ref] for ref in sorted(others)),
    ]
    conversion_data = [dataset["bom-ref"] for dataset in datasets if dataset["bom-ref"] != _TRAINING]
    training_data = [dataset["bom-ref"] for dataset in datasets if dataset["bom-ref"] == _TRAINING]
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgekit", "version": __version__}]},
            "component": _artifact_component(artifact),
        },
        "components": components,
        "dependencies": [
            {"ref": _ARTIFACT, "dependsOn": [_SOURCE, *conversion_data, *sorted(converting)]},
            {"ref": _SOURCE, "dependsOn": [*training_data, *sorted(training)]},
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, to_json(body))
    return {**body, "serialNumber": f"urn:uuid:{serial}"}


def _hashes(sha256: object) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": str(sha256)}] if sha256 else []


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"edgekit:{key}", "value": str(value)} for key, value in values.items() if value is not None]


def _artifact_component(artifact: Artifact) -> _Component:
    manifest = artifact.manifest
    return {
        "type": "machine-learning-model",
        "bom-ref": _ARTIFACT,
        "name": f"{manifest.model} {manifest.variant}",
        "version": manifest.sha256[:12],
        "hashes": _hashes(manifest.sha256),
        "modelCard": {"modelParameters": _parameters(artifact)},
        "properties": _properties(
            {
                "file": manifest.file,
                **{f"file:{file.path}": file.sha256 for file in manifest.files[1:]},
                "size_bytes": manifest.size_bytes,
                "target": manifest.target,
                "precision": manifest.precision,
                "runtime": manifest.runtime,
                "route": " -> ".join(manifest.route),
                "reproducible": str(manifest.reproducible).lower(),
                **{f"option:{key}": value for key, value in sorted(manifest.options.items())},
            }
        ),
    }


def _parameters(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    task = manifest.source.get("task")
    return {
        **({"task": str(task)} if task else {}),
        "inputs": [_tensor(spec) for spec in manifest.signature.inputs],
        "outputs": [_tensor(spec) for spec in manifest.signature.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, str]:
    return {"format": str(spec)}


def _source_component(artifact: Artifact) -> _Component:
    """Return the component of the source, from the manifest."""
    manifest = artifact.manifest
    source_record = manifest.source
    sha256 = str(source_record.get("sha256") or "")
    return {
        "type": "machine-learning-model",
        "bom-ref": _SOURCE,
        "name": f"{manifest.model} ({source_record['kind']})",
        **({"version": sha256[:12]} if sha256 else {}),
        "hashes": _hashes(sha256),
        "properties": _properties(
            {
                key: source_record.get(key)
                for key in ("kind", "parameters", "metric", "metric_value", "weights_sha256", "code_sha256")
            }
        ),
    }


def _datasets(artifact: Artifact, source: SourceModel | None) -> list[_Component]:
    manifest = artifact.manifest
    datasets = []
    if source is not None and source.data.get("name"):
        datasets.append(_dataset(_TRAINING, str(source.data["name"]), source.data, "training"))
    if manifest.calibration is not None:
        datasets.append(_dataset(_CALIBRATION, "calibration samples", manifest.calibration, "calibration"))
    if manifest.golden:
        datasets.append(_dataset(_GOLDEN, "golden samples", manifest.golden, "test"))
    return datasets


def _dataset(ref: str, name: str, record: Mapping[str, Any], use: str) -> _Component:
    licence = record.get("licence")
    return {
        "type": "data",
        "bom-ref": ref,
        "name": name,
        **({"licenses": [{"license": {"name": str(licence)}}]} if licence else {}),
        "hashes": _hashes(record.get("sha256")),
        "data": [{"type": "dataset", "name": name}],
        "properties": _properties(
            {"use": use, "samples": record.get("samples", record.get("train")), "synthetic": record.get("synthetic")}
        ),
    }


def _packages(versions: Mapping[str, str], installed: Mapping[str, InstalledDistribution]) -> dict[str, _Component]:
    """Return the components of packages by their references."""
    packages = {}
    for name, version in sorted(versions.items()):
        component = _package(name, version)
        distribution = installed.get(normalize(name))
        if distribution is not None and distribution.version == version:
            component |= _provenance(distribution)
        packages[component["bom-ref"]] = component
    return packages


def _environment(environment: Iterable[InstalledDistribution], taken_part: Collection[str]) -> dict[str, _Component]:
    """Return the components of the installed packages that did not take part, by their references."""
    packages = {}
    for distribution in environment:
        component = _package(distribution.name, distribution.version)
        if component["bom-ref"] not in taken_part:
            packages[component["bom-ref"]] = {**component, "scope": "optional", **_provenance(distribution)}
    return packages


def _package(name: str, version: str) -> _Component:
    # Package URL (purl-spec, type pypi): lower case, '-' for '_', and percent-encoded, as the '+' of local versions.
    purl = f"pkg:pypi/{_url_part(name.lower().replace('_', '-'))}@{_url_part(version)}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _provenance(distribution: InstalledDistribution) -> _Component:
    licence = distribution.licence
    entry = {"expression": licence} if distribution.is_expression else {"license": {"name": licence}}
    return {
        **({"licenses": [entry]} if licence else {}),
        **({"hashes": _hashes(distribution.sha256)} if distribution.sha256 else {}),
        **({"properties": _properties({"hash_of": distribution.hashed})} if distribution.sha256 else {}),
    }


def _url_part(text: str) -> str:
    # A surrogate has no UTF-8 form.
    return quote(text, safe="", errors="replace")


def describes(document: Mapping[str, Any]) -> Iterable[str]:
    """Return the sha256 of the artifact that a bill of materials describes; empty for any other document.

    Args:
        document: The parsed JSON.
    """
    metadata = document.get("metadata")
    component = metadata.get("component") if isinstance(metadata, dict) else None
    hashes = component.get("hashes") if isinstance(component, dict) else None
    if not isinstance(hashes, list):
        return []
    return [str(entry.get("content")) for entry in hashes if isinstance(entry, dict)]
