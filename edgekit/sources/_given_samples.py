"""Reading of the user's samples: npz and npy files, folders of images, and generators in Python files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError
from edgekit.core.numerics.array_files import load_arrays
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec

PILLOW = Requirement("PIL", "pillow", "images")

# The most samples that are read from a generator, which may be endless, or from a folder of images.
MAX_SAMPLES = 1024
# What Pillow calls images by their number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Formats that Pillow decodes without further packages.
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def read_arrays(path: Path) -> dict[str, Array]:
    """Read the arrays of an npz or npy file without unpickling.

    Args:
        path: The file. Of edgekit's own golden samples only the inputs (`input/NAME`) are read.

    Returns:
        The arrays by name; the array of an npy file has the name ''.

    Raises:
        InputError: The file is of another format, damaged, or holds pickled objects.
    """
    arrays = load_arrays(path, "npz or npy file of samples")
    return {name.removeprefix("input/"): array for name, array in arrays.items() if not name.startswith("output/")}


def read(
    text: str,
    base: Path,
    signature: Signature,
    image_range: tuple[float, float],
    channels: Mapping[str, str] | None = None,
) -> dict[str, Array]:
    """Read calibration samples for a signature.

    Args:
        text: An npz or npy file, a folder of images, or `FILE.py:FUNCTION`, a function that yields samples.
        base: The folder that relative paths start from.
        signature: The inputs that the samples must fit.
        image_range: The values that pixels 0 and 255 become.
        channels: By input, the order of channels that images of a folder get, such as `bgr`.

    Returns:
        One array of shape (N, ...) per input, in the input's dtype.

    Raises:
        InputError: The samples cannot be read, or do not fit the signature.
        MissingDependency: Pillow is not installed and the samples are images.
    """
    path = base / text
    if path.is_dir():
        return _images(path, signature, image_range, channels or {})
    if path.is_file() or not (".py:" in text or text.endswith(".py")):
        return fitted(read_arrays(path), signature, text)
    factory = Factory.parse(text)
    return fitted(_generated(factory.call(base), signature, text), signature, text)


def fitted(arrays: Mapping[str, Array], signature: Signature, subject: str) -> dict[str, Array]:
    """Return the arrays under the names and in the dtypes of the signature's inputs.

    Args:
        arrays: Arrays of shape (N, ...) by name; a single array of any name is used for a single input.
        signature: The inputs.
        subject: How error messages name the samples, such as the file.

    Returns:
        One C-contiguous array per input.

    Raises:
        InputError: Names or shapes differ, or the conversion to an input's dtype would change values.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    if len(specs) == 1 and len(arrays) == 1:
        arrays = dict(zip(specs, arrays.values(), strict=True))
    if set(arrays) != set(specs):
        listed = ", ".join(sorted(name or "without a name" for name in arrays)) or "none"
        raise InputError(f"{subject}: arrays {listed} where the model takes {', '.join(specs)}")
    return {name: _to_spec(arrays[name], spec, subject) for name, spec in specs.items()}


def _to_spec(array: Array, spec: TensorSpec, subject: str) -> Array:
    """Return the array in the dtype of the spec; only a change between float types may lose digits."""
    expected = spec.shape[1:] if spec.shape else ()
    actual = array.shape[1:]
    fits = len(actual) == len(expected) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(expected, actual, strict=True)
    )
    if not array.ndim or not fits or not len(array):
        shape = "x".join(map(str, ("N", *expected)))
        raise InputError(f"{subject}: {spec.name} has the shape {array.shape} where the model takes {shape}")
    target = np.dtype(spec.dtype)
    if array.dtype == target:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{subject}: {spec.name} is {array.dtype} where the model takes {spec.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):  # `_same_values` detects every lost value
        cast = array.astype(target)
    rounded = np.issubdtype(array.dtype, np.floating) and np.issubdtype(target, np.floating)
    # Booleans never convert: numbers in place of a mask are a mistake, even if they are 0 and 1.
    if not rounded and ("b" in (array.dtype.kind, target.kind) or not _same_values(array, cast)):
        raise InputError(f"{subject}: {spec.name} is {array.dtype} where the model takes {spec.dtype}")
    return np.ascontiguousarray(cast)


def _same_values(array: Array, cast: Array) -> bool:
    """Return whether a conversion kept every value.

    Neither comparison is enough: the round trip of uint8 128 through int8 wraps back to 128, and int64 is compared with
    float32 after both are rounded to float64.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return np.array_equal(cast.astype(array.dtype), array) and np.array_equal(cast, array)


def _only_image(signature: Signature, subject: str) -> TensorSpec:
    images = [spec for spec in signature.inputs if spec.layout in ("NHWC", "NCHW")]
    if len(signature.inputs) != 1 or not images or any(isinstance(dim, str) for dim in images[0].shape[1:]):
        raise InputError(f"{subject}: a folder of images requires a model whose only input is an image of fixed size")
    return images[0]


def _images(
    folder: Path, signature: Signature, image_range: tuple[float, float], orders: Mapping[str, str]
) -> dict[str, Array]:
    """Return every image under the folder in the order of the paths, resized to the input, in the input's dtype."""
    spec = _only_image(signature, str(folder))
    require((PILLOW,), "reading images")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not paths:
        raise InputError(f"{folder}: this folder contains no images ({', '.join(_IMAGE_SUFFIXES)})")
    _, *sizes = (int(dim) if isinstance(dim, int) else 0 for dim in spec.shape)
    height, width, channels = sizes if spec.layout == "NHWC" else (*sizes[1:], sizes[0])
    if channels not in _MODES:
        raise InputError(f"{folder}: images have 1, 3 or 4 channels; {spec.name} has {channels}")
    pixels: Any = np.stack([_image(path, height, width, channels) for path in paths[:MAX_SAMPLES]])
    if orders.get(spec.name, "").startswith("bgr"):
        pixels = pixels[..., [2, 1, 0, *range(3, channels)]]
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        low, high = image_range
        pixels = np.interp(pixels, (0, 255), (low, high)).astype(spec.dtype)
    ordered = pixels if spec.layout == "NHWC" else np.moveaxis(pixels, -1, 1)  # (N, H, W, C) -> (N, C, H, W)
    return {spec.name: np.ascontiguousarray(ordered.astype(spec.dtype))}


def _image(path: Path, height: int, width: int, channels: int) -> Array:
    """Return one image of shape (H, W, C) as uint8."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            resized = image.convert(_MODES[channels]).resize((width, height))
            return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: this image has more pixels than Pillow decodes ({error})") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:  # SyntaxError: a damaged PNG
        raise InputError(f"{path}: this is not an image, or it is damaged") from error


def _generated(samples: Any, signature: Signature, subject: str) -> dict[str, Array]:
    """Concatenate the batches that a generator yields: dicts, tuples in the inputs' order, or bare arrays."""
    names = [spec.name for spec in signature.inputs]
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for batch in islice(_iterate(samples, subject), MAX_SAMPLES):
        for name, array in zip(names, _in_order(batch, names, subject), strict=True):
            rows[name].append(np.asarray(array))
    if not rows[names[0]]:
        raise InputError(f"{subject}: the generator yields nothing")
    try:
        return {name: np.concatenate(arrays) for name, arrays in rows.items()}
    except ValueError as error:
        raise InputError(f"{subject}: the generator's samples do not fit together ({error})") from error


def _iterate(samples: Any, subject: str) -> Iterator[Any]:
    """Yield the user's samples; errors of the user's code become InputErrors."""
    if not isinstance(samples, Iterable):
        raise InputError(
            f"{subject}: this function returns a {type(samples).__name__}; it must return an iterable of samples"
        )
    try:
        yield from samples
    except (Exception, SystemExit) as error:  # the user's code may raise anything, sys.exit() included
        raise InputError(f"{subject}: the generator raised {type(error).__name__}: {str(error)[:200]}") from error


def _in_order(batch: Any, names: list[str], subject: str) -> list[Any]:
    """Return the arrays of one batch in the order of the names."""
    if isinstance(batch, Mapping):
        if set(batch) != set(names):
            raise InputError(
                f"{subject}: the generator yields {', '.join(map(str, batch))} where the model takes {names}"
            )
        return [batch[name] for name in names]
    arrays = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    if len(arrays) != len(names):
        raise InputError(f"{subject}: the generator yields {len(arrays)} arrays where the model takes {len(names)}")
    return arrays
