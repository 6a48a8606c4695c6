"""Steps from an image of the application to the input of a model, which become a part of the converted files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import InputError
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.core.values.typed_json import Name, PositiveCount

# The value of a pixel that is fully lit.
PIXEL_RANGE = (0.0, 255.0)
# Types of the images that an application may have: bytes, or the same values as real numbers.
DTYPES = ("uint8", "float32")
LAYOUTS = ("NHWC", "NCHW")
# By the number of channels of the model, what the application's images may have; the first one is the default.
_CHANNELS = {1: ("gray",), 3: ("rgb", "bgr", "rgba", "bgra", "gray"), 4: ("rgba", "bgra")}
# Largest side of an image: more is a typing error, and would allocate gigabytes for samples.
_LARGEST_SIDE = 65_535
_EXAMPLE = "image:size=480x640,scale=1/255,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"

Size = tuple[PositiveCount, PositiveCount]


@dataclass(frozen=True)
class ImageSteps:
    """The steps of one input as the user asked for them; None and empty tuples stand for what the model decides.

    Attributes:
        input: Name of the input.
        size: Height and width of the application's images.
        resize: Height and width to resize to, or the length of the shorter side.
        crop: Height and width of the part in the centre.
        channels: Order of the channels in the application's images, where `rgb` is the model's own order.
        layout: Layout of these images.
        dtype: Type of their pixels, whose values are 0 to 255.
        scale: Factor of the pixels.
        mean: What is subtracted behind the factor: one number, or one for each channel of the model.
        std: What the difference is divided by, in the same form.
    """

    input: str
    size: tuple[int, int] | None = None
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    channels: str | None = None
    layout: str = "NHWC"
    dtype: str = "uint8"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Preprocessing:
    """The steps of one input, of which everything is known. They are applied in the order of the attributes.

    Attributes:
        spec: The input as the model itself takes it, with known height and width.
        size: Height and width of the application's images.
        dtype: Type of their pixels, whose values are 0 to 255.
        layout: Their layout, `NHWC` or `NCHW`.
        resize: Height and width to resize to, bilinear with half-pixel centres; None to keep the size.
        crop: Height and width of the part in the centre; None to keep all of it.
        channels: Order of the channels in the application's images, where `rgb` is the model's own order.
        scale: Factor of the pixels.
        mean: What is subtracted behind the factor, for each channel of the model.
        std: What the difference is divided by, for each channel of the model.
    """

    spec: TensorSpec
    size: Size
    dtype: Name
    layout: Name
    resize: Size | None
    crop: Size | None
    channels: Name
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def raw(self) -> TensorSpec:
        """The input of the converted files: the application's image."""
        channels = len(self.matrix()[0])
        shape = (*self.size, channels) if self.layout == "NHWC" else (channels, *self.size)
        return TensorSpec(self.spec.name, (self.spec.shape[0], *shape), self.dtype, self.layout)

    @property
    def offsets(self) -> tuple[int, int] | None:
        """The row and column at which the part in the centre begins; None without a crop."""
        if self.crop is None:
            return None
        (height, width), (rows, columns) = self.resize or self.size, self.crop
        # As torchvision's CenterCrop, which rounds halves to even.
        return round((height - rows) / 2), round((width - columns) / 2)

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return what multiplies the channels of a pixel, shape (channels of the model, channels of the image).

        It holds the order of the channels, the scale and the standard deviations: one convolution computes all of them,
        and is exact in int8, where each of its rows has a scale of its own.
        """
        factors = self.scale / np.array(self.std)
        order = _order(self.channels, len(self.mean))
        columns = {"gray": 1}.get(self.channels, len(self.channels))
        matrix = np.zeros((len(self.mean), columns))
        matrix[np.arange(len(order)), order] = factors
        return matrix

    def bias(self) -> npt.NDArray[np.float64]:
        """Return what is added to the channels after the multiplication, shape (channels of the model,)."""
        bias: npt.NDArray[np.float64] = -np.array(self.mean) / np.array(self.std)
        return bias

    @property
    def mixes(self) -> bool:
        """Whether any step changes channels: their order, their number or their values."""
        matrix = self.matrix()
        return matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, np.eye(len(matrix))) or any(self.mean)

    def __str__(self) -> str:
        """Return the steps in words, for notes."""
        steps = [f"{_text(self.size)} {self.dtype} {self.layout} {self.channels}"]
        steps += [f"resized to {_text(self.resize)}"] if self.resize else []
        steps += [f"cropped to {_text(self.crop)}"] if self.crop else []
        steps += [f"scaled by {self.scale:.6g}"] if self.scale != 1 else []
        steps += [f"minus {_numbers(self.mean)}"] if any(self.mean) else []
        steps += [f"divided by {_numbers(self.std)}"] if any(value != 1 for value in self.std) else []
        return ", ".join(steps)


def _order(channels: str, count: int) -> list[int]:
    """Return the channel of the image that each channel of the model is computed from."""
    if channels == "gray":
        return [0] * count
    return [channels.index(letter) for letter in "rgba"[:count]]


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _numbers(values: Sequence[float]) -> str:
    unique = values[:1] if len({*values}) == 1 else values
    return "/".join(f"{value:.6g}" for value in unique)


def parse_preprocess(text: str) -> ImageSteps:
    """Parse steps, such as `image:size=480x640,scale=1/255,mean=0.5,std=0.5`.

    Args:
        text: `NAME:KEY=VALUE,…`.

    Raises:
        InputError: The text has another form, a key is unknown or given twice, or a value is invalid.
    """
    name, colon, listed = text.rpartition(":")
    pairs = [part.partition("=") for part in listed.split(",")]
    if not name or not colon or not all(key and equals and value for key, equals, value in pairs):
        raise _error(text, f"write NAME:KEY=VALUE,…, such as {_EXAMPLE}")
    values: dict[str, Any] = {}
    for key, _, value in pairs:
        if key not in _PARSERS:
            raise _error(text, f"unknown step '{key}'; known: {', '.join(_PARSERS)}")
        if key in values:
            raise _error(text, f"{key} is given twice")
        values[key] = _PARSERS[key](text, key, value)
    return ImageSteps(name, **values)


def parse_all(texts: Iterable[str]) -> tuple[ImageSteps, ...]:
    """Parse the steps of several inputs.

    Args:
        texts: The steps as the user typed them.

    Raises:
        InputError: A text is invalid, or two of them are about one input.
    """
    parsed = tuple(map(parse_preprocess, texts))
    names = [steps.input for steps in parsed]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"preprocess: two texts for the input {name}; write all steps in one", parameters=("preprocess",)
            )
    return parsed


def _error(text: str, reason: str) -> InputError:
    return InputError(f"preprocess {text}: {reason}", parameters=("preprocess",))


def _parse_pair(text: str, key: str, value: str) -> tuple[int, int]:
    parts = value.split("x")
    if len(parts) == 1:
        parts *= 2
    sides = [int(part) for part in parts if part.isdecimal() and part.isascii() and len(part) <= 5]
    if len(parts) != 2 or len(sides) != 2 or not all(0 < side <= _LARGEST_SIDE for side in sides):
        raise _error(text, f"{key} is HEIGHTxWIDTH, such as 480x640, with sides from 1 to {_LARGEST_SIDE}")
    return sides[0], sides[1]


def _parse_resize(text: str, key: str, value: str) -> tuple[int, int] | int:
    pair = _parse_pair(text, key, value)
    return pair if "x" in value else pair[0]


def _parse_number(text: str, key: str, value: str) -> float:
    numerator, slash, denominator = value.partition("/")
    try:
        number = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number) or number == 0:
        raise _error(text, f"{key} is a number other than 0, such as 0.5 or 1/255")
    return number


def _parse_numbers(text: str, key: str, value: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, value.split("/")))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise _error(text, f"{key} is one number, or one for each channel, such as 0.485/0.456/0.406")
    return numbers


def _parse_std(text: str, key: str, value: str) -> tuple[float, ...]:
    numbers = _parse_numbers(text, key, value)
    if not all(number > 0 for number in numbers):
        raise _error(text, f"{key} is divided by, and must be larger than 0")
    return numbers


def _parse_word(allowed: Sequence[str]) -> Any:
    def parse(text: str, key: str, value: str) -> str:
        matches = [word for word in allowed if word.lower() == value.lower()]
        if not matches:
            raise _error(text, f"{key} is one of {', '.join(allowed)}")
        return matches[0]

    return parse


# In the order in which the documentation lists them.
_PARSERS: Mapping[str, Any] = {
    "size": _parse_pair,
    "resize": _parse_resize,
    "crop": _parse_pair,
    "channels": _parse_word(tuple(dict.fromkeys(word for words in _CHANNELS.values() for word in words))),
    "layout": _parse_word(LAYOUTS),
    "dtype": _parse_word(DTYPES),
    "scale": _parse_number,
    "mean": _parse_numbers,
    "std": _parse_std,
}


def resolve(
    signature: Signature, requests: Sequence[ImageSteps], subject: str, layout: str
) -> tuple[Preprocessing, ...]:
    """Return the steps of each input with all sizes.

    Args:
        signature: The inputs of the model.
        requests: What the user asked for.
        subject: How error messages name the model, such as its path.
        layout: The usual layout of the source kind, `NHWC` or `NCHW`, where the shape of an input leaves both open.

    Raises:
        InputError: An input does not exist or is no image, or the steps do not lead to what the model takes.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    for request in requests:
        if request.input not in specs:
            listed = "; ".join(map(str, signature.inputs))
            raise InputError(
                f"{subject} has no input {request.input} to preprocess; its inputs: {listed}",
                parameters=("preprocess",),
            )
    return tuple(_resolve(specs[request.input], request, layout) for request in requests)


def _resolve(spec: TensorSpec, request: ImageSteps, usual_layout: str) -> Preprocessing:
    layout = _layout_of(spec, usual_layout)
    if layout is None or not spec.dtype.startswith("float"):
        raise InputError(
            f"the input {spec} cannot be preprocessed: it is no image of 1, 3 or 4 channels in floating point",
            parameters=("preprocess",),
        )
    sides, count = (spec.shape[1:3], spec.shape[3]) if layout == "NHWC" else (spec.shape[2:4], spec.shape[1])
    assert isinstance(count, int)  # `_layout_of` has checked it
    size = request.size or _known(sides)
    if size is None:
        raise _refusal(spec, "the size of the images is unknown; write size=HEIGHTxWIDTH")
    resize = _resized(request, size, sides)
    if request.crop is not None and any(part > side for part, side in zip(request.crop, resize, strict=True)):
        raise _refusal(spec, f"crop {_text(request.crop)} is larger than the image of {_text(resize)}")
    result = request.crop or resize
    if any(isinstance(side, int) and side != actual for side, actual in zip(sides, result, strict=True)):
        raise _refusal(spec, f"the steps lead to {_text(result)} where the model takes {_shape_text(sides)}")
    channels = request.channels or _CHANNELS[count][0]
    if channels not in _CHANNELS[count]:
        allowed = ", ".join(_CHANNELS[count])
        raise _refusal(spec, f"the model takes {count} channels, and channels is then one of {allowed}")
    shape: tuple[Dim, ...] = (*result, count) if layout == "NHWC" else (count, *result)
    return Preprocessing(
        replace(spec, shape=(spec.shape[0], *shape), layout=layout),
        size,
        request.dtype,
        request.layout,
        None if resize == size else resize,
        None if result == resize else result,
        channels,
        request.scale,
        _per_channel(spec, "mean", request.mean or (0.0,), count),
        _per_channel(spec, "std", request.std or (1.0,), count),
    )


def _layout_of(spec: TensorSpec, usual: str) -> str | None:
    """Return the layout of an image by the number of its channels, or None if the tensor is none."""
    if len(spec.shape) != 4:
        return None
    last, first = spec.shape[3] in _CHANNELS, spec.shape[1] in _CHANNELS
    if last and first:
        return usual
    return "NHWC" if last else "NCHW" if first else None


def _known(sides: Sequence[Dim]) -> tuple[int, int] | None:
    height, width = sides
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _resized(request: ImageSteps, size: tuple[int, int], sides: Sequence[Dim]) -> tuple[int, int]:
    """Return the size after the resize step."""
    height, width = size
    if isinstance(request.resize, tuple):
        return request.resize
    if request.resize is not None:
        # The longer side is rounded down, as torchvision does.
        shorter = request.resize
        return (shorter, shorter * width // height) if height <= width else (shorter * height // width, shorter)
    if request.crop is not None:
        return size
    rows, columns = sides
    return (rows if isinstance(rows, int) else height, columns if isinstance(columns, int) else width)


def _per_channel(spec: TensorSpec, key: str, values: tuple[float, ...], count: int) -> tuple[float, ...]:
    if len(values) not in (1, count):
        raise _refusal(spec, f"{key} has {len(values)} numbers where the model takes {count} channels")
    return values * count if len(values) == 1 else values


def _refusal(spec: TensorSpec, reason: str) -> InputError:
    return InputError(f"preprocess {spec.name}: {reason}", parameters=("preprocess",))


def _shape_text(sides: Sequence[Dim]) -> str:
    return "x".join(map(str, sides))


def with_raw(signature: Signature, items: Sequence[Preprocessing]) -> Signature:
    """Return a signature with the application's images in place of the model's own inputs.

    Args:
        signature: The signature of the model; batches keep their size.
        items: The steps.
    """
    return _replaced(signature, {item.spec.name: item.raw for item in items})


def without_raw(signature: Signature, items: Sequence[Preprocessing]) -> Signature:
    """Return the signature of the model itself, the reverse of `with_raw`.

    Args:
        signature: The signature with the application's images; batches keep their size.
        items: The steps.
    """
    return _replaced(signature, {item.spec.name: item.spec for item in items})


def _replaced(signature: Signature, specs: Mapping[str, TensorSpec]) -> Signature:
    def other(spec: TensorSpec) -> TensorSpec:
        new = specs.get(spec.name)
        return spec if new is None else replace(new, shape=(spec.shape[0], *new.shape[1:]))

    return replace(signature, inputs=tuple(map(other, signature.inputs)))


def in_float(items: Sequence[Preprocessing]) -> tuple[Preprocessing, ...]:
    """Return the same steps for pixels that are real numbers."""
    return tuple(replace(item, dtype="float32") for item in items)
