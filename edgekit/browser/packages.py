"""The npm packages that run models in a browser, in the user's cache: `browser/packages-<key>/`, made on set-up.

    onnxruntime-web/    the library of ONNX Runtime, and its WebAssembly with and without WebGPU
    litert-js/          LiteRT.js with the helper that it imports, and its WebAssembly
    record.json         the versions, and each file's hash and size, as it is and compressed

The folder is created atomically: one that exists is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.environment.user_cache import cache_folder
from edgekit.core.errors import InputError, MissingDependency
from edgekit.core.values.typed_json import Count, Name, Sha256, decode

RECORD = "record.json"
# Part of the folder's name; increase it when the same packages result in different files.
LAYOUT = 1


@dataclass(frozen=True)
class Package:
    """An npm package.

    Attributes:
        name: The name and the version, as npm takes them.
        integrity: The SHA-512 of its archive in base64, as npm publishes it.
        files: The files that are kept: path in the package -> path in the folder.
    """

    name: str
    integrity: str
    files: Mapping[str, str]


def _same(folder: str, to: str, *names: str) -> dict[str, str]:
    return {f"{folder}/{name}": f"{to}/{name}" for name in names}


PACKAGES = (
    Package(
        "onnxruntime-web@1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        _same(
            "dist",
            "onnxruntime-web",
            *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "ort.webgpu.min.mjs"),
            *("ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
        ),
    ),
    Package(
        "@litertjs/core@2.5.3",
        "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        {
            "dist/index.js": "litert-js/index.js",
            **_same(
                "wasm",
                "litert-js/wasm",
                *(
                    f"litert_wasm_{kind}internal.{suffix}"
                    for kind in ("", "compat_", "jspi_", "threaded_")
                    for suffix in ("js", "wasm")
                ),
            ),
        },
    ),
    Package(
        "@litertjs/wasm-utils@2.5.3",
        "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        {"dist/bundle.js": "litert-js/wasm-utils.js"},
    ),
)
# A page without an import map resolves relative imports only: (file, what it imports, what it imports instead).
REWRITTEN_IMPORTS = (("litert-js/index.js", '"@litertjs/wasm-utils"', '"./wasm-utils.js"'),)

SET_UP = "edgekit devices setup chromium"


@dataclass(frozen=True)
class PackageFile:
    """A file of the packages.

    Attributes:
        sha256: The hash of its content.
        size_bytes: Its size.
        gzip_bytes: Its size after `gzip -9`.
        brotli_bytes: Its size after brotli at quality 6.
    """

    sha256: Sha256
    size_bytes: Count
    gzip_bytes: Count
    brotli_bytes: Count


@dataclass(frozen=True)
class PackagesRecord:
    """What the folder was made from, and its files by path."""

    packages: tuple[Name, ...]
    files: Mapping[Name, PackageFile]

    def version(self, runtime: str) -> str:
        """Return the version of a runtime's package.

        Args:
            runtime: The name of its folder.
        """
        names = {"onnxruntime-web": "onnxruntime-web", "litert-js": "@litertjs/core"}
        return next(name.rpartition("@")[2] for name in self.packages if name.rpartition("@")[0] == names[runtime])


def home() -> Path:
    """Return the folder that contains those of all versions."""
    return cache_folder() / "browser"


def packages_folder() -> Path:
    """Return the folder of the pinned packages, which need not exist."""
    pins = [LAYOUT, [[package.name, package.integrity, dict(package.files)] for package in PACKAGES]]
    return home() / f"packages-{hashlib.sha256(json.dumps(pins, sort_keys=True).encode()).hexdigest()[:12]}"


def find_packages() -> PackagesRecord | None:
    """Return the record of the packages, or None if they are not set up."""
    path = packages_folder() / RECORD
    if not path.is_file():
        return None
    try:
        return decode(PackagesRecord, read_json(path, "record of the browser's packages"), path)
    except InputError as error:
        raise InputError(f"{error}; to set it up again: edgekit devices remove chromium && {SET_UP}") from None


def require_packages() -> PackagesRecord:
    """Return the record of the packages.

    Raises:
        MissingDependency: They are not set up; the message contains the command.
    """
    record = find_packages()
    if record is None:
        raise MissingDependency(f"the runtimes of the browser are not set up; run: {SET_UP}")
    return record
