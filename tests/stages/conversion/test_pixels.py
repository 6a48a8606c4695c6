"""How quantized files take the pixels of preprocessed images."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.contracts.target import SupportedForms
from edgekit.core.errors import InputError
from edgekit.core.values.preprocessing import Preprocessing, parse_all, resolve, with_raw
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.conversion.pixels import pixel_form, with_pixels

IMAGE = TensorSpec("image", ("batch", 4, 4, 3), "float32")
AGE = TensorSpec("age", ("batch", 1), "float32")
INTEGER = SupportedForms(("int8", "uint8", "float32"), ranges=True)


def steps_of(*inputs: TensorSpec, text: str = "image:scale=1/255") -> tuple[tuple[Preprocessing, ...], Signature]:
    signature = Signature(inputs, ())
    steps = resolve(signature, parse_all([text]), "net", "NHWC")
    return steps, with_raw(signature, steps)


@pytest.mark.parametrize(
    ("supported", "form", "dtype", "input_type", "ranges"),
    [
        (INTEGER, QuantizationForm(), "float32", "uint8", {"image": (0, 255)}),
        (INTEGER, QuantizationForm("int8"), "float32", "int8", {"image": (0, 255)}),
        (INTEGER, QuantizationForm("float32"), "float32", "float32", {}),
        (INTEGER, QuantizationForm(ranges={"y": (0, 1)}), "float32", "uint8", {"image": (0, 255), "y": (0, 1)}),
        (SupportedForms(), QuantizationForm(), "uint8", None, {}),  # a float file converts the bytes
    ],
)
def test_bytes_are_the_integers_of_a_quantized_file(supported, form, dtype, input_type, ranges) -> None:
    steps, signature = steps_of(IMAGE)
    chosen = pixel_form(steps, signature, form, supported)
    assert [item.dtype for item in chosen.steps] == [dtype]
    assert (chosen.form.inference_input_type, dict(chosen.form.ranges)) == (input_type, ranges)


def test_other_inputs_keep_their_type() -> None:
    steps, signature = steps_of(IMAGE, AGE)
    chosen = pixel_form(steps, signature, QuantizationForm(), INTEGER)
    assert chosen.steps == steps
    assert not chosen.form


def test_images_in_float32_stay_so() -> None:
    steps, signature = steps_of(IMAGE, text="image:dtype=float32")
    assert not pixel_form(steps, signature, QuantizationForm(), INTEGER).form


def test_a_source_without_steps_has_the_form_of_the_request() -> None:
    form = QuantizationForm("uint8")
    assert pixel_form((), Signature((IMAGE,), ()), form, INTEGER).form == form


def test_the_range_of_pixels_cannot_be_another_one() -> None:
    steps, signature = steps_of(IMAGE)
    with pytest.raises(InputError, match="the range of image is that of pixels") as caught:
        pixel_form(steps, signature, QuantizationForm(ranges={"image": (0, 1)}), INTEGER)
    assert caught.value.parameters == ("ranges",)


def test_samples_show_the_whole_range() -> None:
    steps, signature = steps_of(IMAGE)
    images = {"image": np.full((2, 4, 4, 3), 7, np.uint8), "age": np.ones((2, 1), np.float32)}
    chosen = pixel_form(steps, signature, QuantizationForm(), INTEGER)
    changed = with_pixels(images, chosen.steps, full_range=True)
    assert (changed["image"].dtype, changed["image"].min(), changed["image"].max()) == ("float32", 0, 255)
    assert np.sum(changed["image"] != 7) == 2
    assert changed["age"] is images["age"]
    assert images["image"].max() == 7
    assert with_pixels(images, chosen.steps)["image"].max() == 7
    assert with_pixels(None, chosen.steps) is None
