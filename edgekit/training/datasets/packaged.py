"""Data files inside installed packages, read without importing the package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError


def read_packaged(data: str, requirement: Requirement, version: str, name: str, sha256: str, description: str) -> bytes:
    """Return the content of a file in a package's folder after verifying its sha256.

    The hash is verified before anything parses the content, because a data file may be a pickle.

    Args:
        data: Name of the data set, for messages.
        requirement: The package.
        version: The version of the package that is known to contain the file.
        name: Path of the file relative to the package's folder.
        sha256: Expected hash of the file.
        description: What the file is, for messages.

    Returns:
        The content of the file.

    Raises:
        MissingDependency: The package is not installed.
        InputError: The file is missing or its hash differs.
    """
    require((requirement,), f"the data {data}")
    spec = importlib.util.find_spec(requirement.module)
    assert spec is not None and spec.origin is not None  # require() has checked that the package is installed
    path = Path(spec.origin).parent / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{path}: this is not {description} that edgekit expects (its sha256 differs);"
            f" install {requirement.distribution} {version}"
        )
    return content
