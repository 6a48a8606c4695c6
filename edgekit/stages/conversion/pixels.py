"""How quantized files take images: as the bytes that they are, with the scale 1 and the zero point 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from edgekit.contracts.target import SupportedForms
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.preprocessing import PIXEL_RANGE, Preprocessing, in_float
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.specs import Signature


@dataclass(frozen=True)
class PixelForm:
    """How a conversion takes the images of preprocessed inputs.

    Attributes:
        steps: The steps that the source is loaded with.
        form: The form of the file.
    """

    steps: tuple[Preprocessing, ...]
    form: QuantizationForm


def pixel_form(
    steps: Sequence[Preprocessing], signature: Signature, form: QuantizationForm, supported: SupportedForms
) -> PixelForm:
    """Return how a conversion takes images.

    A source that takes bytes converts them to float32, which an integer file would have to do at full size before it
    quantizes them again. Where the target has inputs of uint8, the bytes are the quantized values instead: the source
    is loaded for real numbers, whose range is known.

    Args:
        steps: The steps of the source.
        signature: The inputs of the source.
        form: The form that the user asked for, with what its preset requires.
        supported: What the target has at this precision.

    Raises:
        InputError: The user set another range for an image.
    """
    names = [item.spec.name for item in steps]
    ranged = [name for name in names if form.ranges.get(name, PIXEL_RANGE) != PIXEL_RANGE]
    if ranged:
        raise InputError(
            f"the range of {ranged[0]} is that of pixels, 0..255, since the input is preprocessed",
            parameters=("ranges",),
        )
    others = [spec for spec in signature.inputs if spec.dtype.startswith("float") and spec.name not in names]
    chosen = form.inference_input_type
    if chosen is None and not others and "uint8" in supported.input_types:
        # The type of all inputs, so another one in float32 would become bytes as well.
        chosen = "uint8" if all(item.dtype == "uint8" for item in steps) else None
    if not steps or chosen is None:
        return PixelForm(tuple(steps), form)
    ranges = {} if chosen == "float32" else dict.fromkeys(names, PIXEL_RANGE)
    return PixelForm(in_float(steps), replace(form, inference_input_type=chosen, ranges={**form.ranges, **ranges}))


_Arrays = TypeVar("_Arrays", Mapping[str, Array], Mapping[str, Array] | None)


def with_pixels(arrays: _Arrays, steps: Sequence[Preprocessing], *, full_range: bool = False) -> _Arrays:
    """Return samples with the images in the type that the steps take.

    Args:
        arrays: Arrays of shape (N, ...) by input name; None stays None.
        steps: The steps that the source is loaded with.
        full_range: Whether the first image gets a black and a white pixel in its corners: ranges that are measured on
            such samples are those of all images.

    Returns:
        New arrays for the images; all others as they are.
    """
    if arrays is None:
        return None
    changed = dict(arrays)
    for item in steps:
        images = np.array(changed[item.spec.name], item.dtype)
        if full_range and images.size:
            images[0].flat[0], images[0].flat[-1] = PIXEL_RANGE
        changed[item.spec.name] = images
    return changed
