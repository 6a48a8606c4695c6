"""The part of edgekit that runs on a board, as an archive that is the same for the same version."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

from edgekit import _version

# What the runner imports; a test runs it with nothing else. Other packages need pydantic or frameworks.
_PACKAGES = ("contracts", "core", "runtimes", "tensorflow_files", "torch_files")
_FILES = ("__init__.py", "_version.py")
# The earliest time that the format can hold: times are not part of the content.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def archive() -> tuple[bytes, str]:
    """Return the archive and its sha256."""
    package = Path(_version.__file__).parent
    paths = [package / name for name in _FILES]
    for name in _PACKAGES:
        paths += [path for path in (package / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(paths):
            entry = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, path.read_bytes())
    content = stream.getvalue()
    return content, hashlib.sha256(content).hexdigest()
