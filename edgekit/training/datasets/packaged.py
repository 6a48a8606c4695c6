"""Data files that lie in the folder of an installed package, read without importing the package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError


def read(data: str, requirement: Requirement, version: str, name: str, sha256: str, what: str) -> bytes:
    """The bytes of the file `name` in the package's folder, and nothing but the bytes whose sha256 is known.

    Raises MissingDependency when the package is not installed, InputError when the file is absent or another one:
    before anything parses it.
    """
    require((requirement,), f"the data {data}")
    spec = importlib.util.find_spec(requirement.module)
    assert spec is not None and spec.origin is not None  # require() has found it
    path = Path(spec.origin).parent / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{path}: not {what} that edgekit knows (its sha256 differs); install {requirement.distribution} {version}"
        )
    return content
