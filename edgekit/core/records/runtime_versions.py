"""The record `runtime-versions-<device>.json` beside an artifact: its counts under several versions of its runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.operator_costs import explain_slowdown
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.units import format_count
from edgekit.core.values.typed_json import Name, Sha256

_SCHEMA = 1


@dataclass(frozen=True)
class RuntimeVersion:
    """One artifact under one version of its runtime.

    Attributes:
        requirement: The runtime's package and version, such as `onnxruntime==1.31.0`.
        emulated: The counts and the latency.
    """

    requirement: Name
    emulated: EmulatedLatency

    @property
    def instructions(self) -> float:
        """The instructions of one inference."""
        return self.emulated.counts.instructions


@dataclass(frozen=True)
class RuntimeVersions:
    """The content of `runtime-versions-<device>.json`.

    Attributes:
        artifact_sha256: The sha256 of the artifact that was run.
        device: The name of the device profile.
        versions: The versions; the others are compared with the first.
        schema_version: The version of the file's format.
    """

    artifact_sha256: Sha256
    device: Name
    versions: tuple[RuntimeVersion, ...]
    schema_version: int = _SCHEMA

    def growth(self, version: RuntimeVersion) -> float:
        """Return by which share a version executes more instructions than the first one; negative if fewer."""
        before = self.versions[0].instructions
        return version.instructions / before - 1 if before else 0.0

    def slower(self, allowed_share: float) -> tuple[str, ...]:
        """Return a sentence for each version that executes more instructions than is allowed.

        Args:
            allowed_share: By which share the instructions may exceed those of the first version.

        Returns:
            The sentences, with the operators that explain most of the growth where they were counted.
        """
        first = self.versions[0]
        sentences = []
        for version in self.versions[1:]:
            growth = self.growth(version)
            if growth <= allowed_share:
                continue
            cause = explain_slowdown(first.emulated.operators, version.emulated.operators)
            sentences.append(
                f"{version.requirement} executes {100 * growth:.1f} % more instructions than {first.requirement}"
                f" ({format_count(version.instructions)} against {format_count(first.instructions)};"
                f" {100 * allowed_share:g} % are allowed){f': {cause}' if cause else ''}"
            )
        return tuple(sentences)


def runtime_versions_file(device: str) -> str:
    """Return the record's file name for a device, such as `runtime-versions-raspberry-pi-4b.json`."""
    return f"runtime-versions-{device}.json"


def load_runtime_versions(path: Path) -> RuntimeVersions:
    """Read a `runtime-versions-<device>.json`.

    Args:
        path: The file.

    Returns:
        The record.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    return runtime_versions_from_dict(read_json(path, "comparison of runtime versions"), path)


def runtime_versions_from_dict(data: Any, path: Path) -> RuntimeVersions:
    """Decode the content of a `runtime-versions-<device>.json`.

    Args:
        data: The decoded JSON.
        path: Where it is from, for errors.

    Returns:
        The record.

    Raises:
        InputError: The data is damaged or of an unknown version.
    """
    again = "run the bench again"
    record = decode_versioned(RuntimeVersions, data, path, "a comparison of runtime versions", again, version=_SCHEMA)
    if len(record.versions) < 2:
        raise InputError(f"{path}: versions: at least two are compared; {again}")
    return record
