"""A bill of materials in CycloneDX 1.6: what an artifact was made from, with which tools, by hash and version.

A function of the manifest and of source.json, so that it gives the same bytes again: no time, and a serial number that
is a hash of the rest. Field names follow the CycloneDX 1.6 JSON schema (ECMA-424).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgekit._version import __version__
from edgekit.core.environment.atomic_files import to_json, write_json
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import TensorSpec

SBOM_FILE = "sbom.cdx.json"
_ARTIFACT, _SOURCE, _TRAINING, _CALIBRATION, _GOLDEN = (
    "artifact",
    "source",
    "data:training",
    "data:calibration",
    "data:golden",
)

_Component = dict[str, Any]


def write_sbom(artifact: Artifact) -> Path:
    """Writes it beside the model file. Raises InputError or DiskFull."""
    folder = artifact.folder.parent / "source"
    source = load_source(folder) if (folder / SOURCE_FILE).is_file() else None
    if source is not None and source.sha256 != artifact.manifest.source.get("sha256"):
        source = None  # trained again since: it says nothing about this artifact
    path = artifact.folder / SBOM_FILE
    write_json(path, sbom(artifact, source))
    return path


def sbom(artifact: Artifact, source: SourceModel | None) -> dict[str, Any]:
    """The document. Without the source, what the manifest tells of it."""
    converting = _tools(artifact.manifest.versions)
    training = _tools(source.versions) if source is not None else {}
    data = _data(artifact, source)
    components = [
        _source(artifact),
        *data,
        *({**converting, **training}[ref] for ref in sorted({*converting, *training})),
    ]
    made_from = [item["bom-ref"] for item in data if item["bom-ref"] != _TRAINING]
    trained_from = [item["bom-ref"] for item in data if item["bom-ref"] == _TRAINING]
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgekit", "version": __version__}]},
            "component": _artifact(artifact),
        },
        "components": components,
        "dependencies": [
            {"ref": _ARTIFACT, "dependsOn": [_SOURCE, *made_from, *sorted(converting)]},
            {"ref": _SOURCE, "dependsOn": [*trained_from, *sorted(training)]},
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, to_json(body))
    return {**body, "serialNumber": f"urn:uuid:{serial}"}


def _hashes(sha256: object) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": str(sha256)}] if sha256 else []


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"edgekit:{key}", "value": str(value)} for key, value in values.items() if value is not None]


def _artifact(artifact: Artifact) -> _Component:
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


def _source(artifact: Artifact) -> _Component:
    """What was converted, as the manifest recorded it."""
    manifest = artifact.manifest
    known = manifest.source
    sha256 = str(known.get("sha256") or "")
    return {
        "type": "machine-learning-model",
        "bom-ref": _SOURCE,
        "name": f"{manifest.model} ({known['kind']})",
        **({"version": sha256[:12]} if sha256 else {}),
        "hashes": _hashes(sha256),
        "properties": _properties(
            {
                key: known.get(key)
                for key in ("kind", "parameters", "metric", "metric_value", "weights_sha256", "code_sha256")
            }
        ),
    }


def _data(artifact: Artifact, source: SourceModel | None) -> list[_Component]:
    manifest = artifact.manifest
    found = []
    if source is not None and source.data.get("name"):
        found.append(_dataset(_TRAINING, str(source.data["name"]), source.data, "training"))
    if manifest.calibration is not None:
        found.append(_dataset(_CALIBRATION, "calibration samples", manifest.calibration, "calibration"))
    if manifest.golden:
        found.append(_dataset(_GOLDEN, "golden samples", manifest.golden, "test"))
    return found


def _dataset(ref: str, name: str, known: Mapping[str, Any], use: str) -> _Component:
    licence = known.get("licence")
    return {
        "type": "data",
        "bom-ref": ref,
        "name": name,
        **({"licenses": [{"license": {"name": str(licence)}}]} if licence else {}),
        "hashes": _hashes(known.get("sha256")),
        "data": [{"type": "dataset", "name": name}],
        "properties": _properties({"use": use, "samples": known.get("samples", known.get("train"))}),
    }


def _tools(versions: Mapping[str, str]) -> dict[str, _Component]:
    """The packages that took part, by their reference."""
    return dict(_package(name, version) for name, version in sorted(versions.items()))


def _package(name: str, version: str) -> tuple[str, _Component]:
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}"
    return purl, {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def describes(document: Mapping[str, Any]) -> Iterable[str]:
    """The sha256 of the artifact that a bill of materials is about; none where it is something else."""
    metadata = document.get("metadata")
    component = metadata.get("component") if isinstance(metadata, dict) else None
    hashes = component.get("hashes") if isinstance(component, dict) else None
    return [str(item.get("content")) for item in hashes if isinstance(item, dict)] if isinstance(hashes, list) else []
