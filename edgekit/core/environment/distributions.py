"""The installed distributions with their hashes and licences, as their metadata states them."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata

# A distribution may put the whole text of its licence into the field.
_MAX_LICENCE = 100
# Files that the installer writes: they differ between two installations of the same release.
_BY_INSTALLER = re.compile(r"^\.\.|\.pyc$|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$")


@dataclass(frozen=True)
class InstalledDistribution:
    """An installed distribution.

    Attributes:
        name: Its name, as its metadata spells it.
        version: Its version.
        sha256: SHA-256 of the archive or of the installed files; empty if neither is known.
        hashed: What `sha256` is of: `archive`, or `installed files` by the hashes of its RECORD.
        licence: An SPDX expression, or the name that its metadata gives; empty if there is none.
        is_expression: Whether `licence` is an SPDX expression.
    """

    name: str
    version: str
    sha256: str
    hashed: str
    licence: str
    is_expression: bool


def normalize(name: str) -> str:
    """Return a distribution's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def installed_distributions() -> tuple[InstalledDistribution, ...]:
    """Return the distributions of this Python environment, by normalized name, edgekit itself left out."""
    found: dict[str, InstalledDistribution] = {}
    for distribution in metadata.distributions():
        fields = distribution.metadata
        name = _field(fields, "Name") if fields is not None else ""
        if not name or normalize(name) in found or normalize(name) == "edgekit":
            continue  # the first one on the path is the one that is imported
        sha256 = _archive_sha256(distribution)
        hashed = "archive"
        if not sha256:
            sha256, hashed = _files_sha256(distribution), "installed files"
        expression = _field(fields, "License-Expression")
        found[normalize(name)] = InstalledDistribution(
            name,
            distribution.version,
            sha256,
            hashed if sha256 else "",
            expression or _licence(fields),
            bool(expression),
        )
    return tuple(found[name] for name in sorted(found))


def _field(fields: metadata.PackageMetadata, name: str) -> str:
    # Checked first: with the package importlib_metadata loaded, a missing field raises KeyError instead of being None.
    return str(fields[name] or "") if name in fields else ""


def _archive_sha256(distribution: metadata.Distribution) -> str:
    """Return the hash of direct_url.json (PEP 610), which pip writes for what was not installed from an index."""
    try:
        direct_url = json.loads(distribution.read_text("direct_url.json") or "{}")
        sha256 = direct_url["archive_info"]["hashes"]["sha256"]
    except (ValueError, KeyError, TypeError):
        return ""
    return sha256 if isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256) else ""


def _files_sha256(distribution: metadata.Distribution) -> str:
    """Return the SHA-256 of the lines `path,hash` of RECORD, of the files that come from the archive."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    lines = [f"{row[0]},{row[1]}" for row in rows if len(row) > 1 and row[1] and not _BY_INSTALLER.search(row[0])]
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest() if lines else ""


def _licence(fields: metadata.PackageMetadata) -> str:
    text = " ".join(_field(fields, "License").split())
    if text and text.upper() != "UNKNOWN" and len(text) <= _MAX_LICENCE:
        return text
    classifiers = [str(value) for value in fields.get_all("Classifier") or ()]
    names = [value.rpartition("::")[2].strip() for value in classifiers if value.startswith("License ::")]
    return ", ".join(dict.fromkeys(name for name in names if name != "OSI Approved"))
