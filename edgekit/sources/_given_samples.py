"""Samples that a user hands in: npz and npy files, a folder of images, or a generator in a Python file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec

PILLOW = Requirement("PIL", "pillow", "images")

MOST = 1024
"""Samples that are taken from an endless generator, or a folder full of images."""
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an npz file by name, or of an npy file under the name ''. Never unpickles.

    Raises InputError when it is neither, or damaged.
    """
    read_bytes(path, "file of samples")
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"": found}
            arrays = {name: found[name] for name in found.files if not name.startswith("output/")}
            if not arrays or not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("no arrays")
            return {name.removeprefix("input/"): array for name, array in arrays.items()}
    except Exception as error:  # zip, zlib, npy headers: a damaged byte raises errors of any type
        pickled = "pickle" in str(error)
        what = "it holds pickled objects, which edgekit does not load" if pickled else "or it is damaged"
        raise InputError(f"{path}: this is not an npz or npy file of samples: {what}") from error


def read(text: str, base: Path, signature: Signature, image_range: tuple[float, float]) -> dict[str, Array]:
    """Calibration samples for the signature: a file, a folder of images, or `file.py:function` that yields samples.

    Pixels 0..255 become `image_range`. Raises InputError when the samples do not fit the signature.
    """
    path = base / text
    if path.is_dir():
        return _images(path, signature, image_range)
    if path.is_file() or not (".py:" in text or text.endswith(".py")):
        return fitted(read_arrays(path), signature, text)
    factory = Factory.parse(text)
    return fitted(_generated(factory.call(base), signature, text), signature, text)


def fitted(arrays: Mapping[str, Array], signature: Signature, what: str) -> dict[str, Array]:
    """The arrays under the names and in the types of the inputs.

    One array without a fitting name is taken for the only input. Raises InputError that says what does not fit.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    if len(specs) == 1 and len(arrays) == 1:
        arrays = dict(zip(specs, arrays.values(), strict=True))
    if set(arrays) != set(specs):
        listed = ", ".join(sorted(name or "without a name" for name in arrays)) or "none"
        raise InputError(f"{what}: arrays {listed} where the model takes {', '.join(specs)}")
    return {name: _fitted(arrays[name], spec, what) for name, spec in specs.items()}


def _fitted(array: Array, spec: TensorSpec, what: str) -> Array:
    wanted = spec.shape[1:] if spec.shape else ()
    got = array.shape[1:]
    fits = len(got) == len(wanted) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(wanted, got, strict=True)
    )
    if not array.ndim or not fits or not len(array):
        shape = "x".join(map(str, ("N", *wanted)))
        raise InputError(f"{what}: {spec.name} has the shape {array.shape} where the model takes {shape}")
    target = np.dtype(spec.dtype)
    if array.dtype == target:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what}: {spec.name} is {array.dtype} where the model takes {spec.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):  # what is lost is seen below
        cast = array.astype(target)
    rounded = np.issubdtype(array.dtype, np.floating) and np.issubdtype(target, np.floating)
    if not rounded and ("b" in (array.dtype.kind, target.kind) or not np.array_equal(cast.astype(array.dtype), array)):
        raise InputError(f"{what}: {spec.name} is {array.dtype} where the model takes {spec.dtype}")
    return np.ascontiguousarray(cast)


def _only_image(signature: Signature, what: str) -> TensorSpec:
    images = [spec for spec in signature.inputs if spec.layout in ("NHWC", "NCHW")]
    if len(signature.inputs) != 1 or not images or any(isinstance(dim, str) for dim in images[0].shape[1:]):
        raise InputError(f"{what}: a folder of images suits a model whose one input is an image of a fixed size")
    return images[0]


def _images(folder: Path, signature: Signature, image_range: tuple[float, float]) -> dict[str, Array]:
    """Every image under the folder in the order of its path, resized to the input, as float or as uint8."""
    spec = _only_image(signature, str(folder))
    require((PILLOW,), "reading images")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _IMAGES]
    if not paths:
        raise InputError(f"{folder}: there is no image in this folder ({', '.join(_IMAGES)})")
    _, *sizes = (int(dim) if isinstance(dim, int) else 0 for dim in spec.shape)
    height, width, channels = sizes if spec.layout == "NHWC" else (*sizes[1:], sizes[0])
    if channels not in (1, 3):
        raise InputError(f"{folder}: images have 1 or 3 channels; {spec.name} has {channels}")
    pixels: Any = np.stack([_image(path, height, width, channels) for path in paths[:MOST]])
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        low, high = image_range
        pixels = np.interp(pixels, (0, 255), (low, high)).astype(spec.dtype)
    ordered = pixels if spec.layout == "NHWC" else np.moveaxis(pixels, -1, 1)
    return {spec.name: np.ascontiguousarray(ordered.astype(spec.dtype))}


def _image(path: Path, height: int, width: int, channels: int) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            resized = image.convert("L" if channels == 1 else "RGB").resize((width, height))
            return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(f"{path}: this is not an image, or it is damaged") from error


def _generated(made: Any, signature: Signature, what: str) -> dict[str, Array]:
    """What a generator yields, put together: each a dict, a tuple in the inputs' order, or one array; a batch each."""
    names = [spec.name for spec in signature.inputs]
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for item in islice(_iterated(made, what), MOST):
        for name, array in zip(names, _in_order(item, names, what), strict=True):
            rows[name].append(np.asarray(array))
    if not rows[names[0]]:
        raise InputError(f"{what}: the generator yields nothing")
    try:
        return {name: np.concatenate(arrays) for name, arrays in rows.items()}
    except ValueError as error:
        raise InputError(f"{what}: the generator's samples do not fit together ({error})") from error


def _iterated(made: Any, what: str) -> Iterator[Any]:
    if not isinstance(made, Iterable):
        raise InputError(
            f"{what}: this function returns a {type(made).__name__} where samples belong, one after another"
        )
    try:
        yield from made
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(f"{what}: the generator raised {type(error).__name__}: {str(error)[:200]}") from error


def _in_order(item: Any, names: list[str], what: str) -> list[Any]:
    if isinstance(item, Mapping):
        if set(item) != set(names):
            raise InputError(f"{what}: the generator yields {', '.join(map(str, item))} where the model takes {names}")
        return [item[name] for name in names]
    items = list(item) if isinstance(item, (list, tuple)) else [item]
    if len(items) != len(names):
        raise InputError(f"{what}: the generator yields {len(items)} arrays where the model takes {len(names)}")
    return items
