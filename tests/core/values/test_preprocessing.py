"""Steps in front of an input: how they are written, what they lead to, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import InputError
from edgekit.core.values.preprocessing import (
    ImageSteps,
    Preprocessing,
    parse_all,
    parse_preprocess,
    resolve,
    with_raw,
    without_raw,
)
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.core.values.typed_json import decode

LAST = TensorSpec("image", ("batch", 224, 224, 3), "float32")
FIRST = TensorSpec("image", ("batch", 3, 224, 224), "float32")


def steps(text: str, spec: TensorSpec = FIRST) -> Preprocessing:
    (item,) = resolve(Signature((spec,), ()), parse_all([text]), "net.onnx", "NCHW")
    return item


def test_every_step_is_read() -> None:
    text = (
        "serving_default_x:0:size=480x640,resize=256,crop=224,channels=BGR,layout=nchw,dtype=float32,scale=1/255,"
        "mean=0.485/0.456/0.406,std=0.5"
    )
    assert parse_preprocess(text) == ImageSteps(
        "serving_default_x:0",
        (480, 640),
        256,
        (224, 224),
        "bgr",
        "NCHW",
        "float32",
        1 / 255,
        (0.485, 0.456, 0.406),
        (0.5,),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("size=480x640", "write NAME:KEY=VALUE"),
        ("image:", "write NAME:KEY=VALUE"),
        ("image:size", "write NAME:KEY=VALUE"),
        ("image:blur=3", "unknown step 'blur'; known: size, resize, crop, channels"),
        ("image:size=480x640,size=1x1", "size is given twice"),
        ("image:size=480x0", "size is HEIGHTxWIDTH"),
        ("image:size=99999x2", "size is HEIGHTxWIDTH"),
        ("image:crop=1x2x3", "crop is HEIGHTxWIDTH"),
        ("image:scale=0", "scale is a number other than 0"),
        ("image:scale=1/0", "scale is a number other than 0"),
        ("image:mean=a", "mean is one number, or one for each channel"),
        ("image:mean=nan", "mean is one number, or one for each channel"),
        ("image:std=0.2/0/0.2", "std is divided by, and must be larger than 0"),
        ("image:channels=yuv", "channels is one of gray, rgb, bgr, rgba, bgra"),
        ("image:layout=CHWN", "layout is one of NHWC, NCHW"),
        ("image:dtype=int8", "dtype is one of uint8, float32"),
    ],
)
def test_a_text_of_another_form_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        parse_preprocess(text)
    assert caught.value.parameters == ("preprocess",)


def test_two_texts_for_one_input_are_refused() -> None:
    with pytest.raises(InputError, match="two texts for the input image"):
        parse_all(["image:scale=2", "image:mean=1"])


@pytest.mark.parametrize(
    ("text", "resize", "crop", "offsets"),
    [
        ("image:size=480x640", (224, 224), None, None),
        ("image:scale=2", None, None, None),  # the images have the model's own size
        ("image:size=480x640,crop=224", None, (224, 224), (128, 208)),
        ("image:size=480x640,resize=256,crop=224", (256, 341), (224, 224), (16, 58)),  # (341 - 224) / 2 = 58.5
        ("image:size=640x480,resize=225x226,crop=224x224", (225, 226), (224, 224), (0, 1)),
        ("image:size=224x224,crop=224", None, None, None),
    ],
)
def test_sizes_lead_to_that_of_the_model(text: str, resize: Any, crop: Any, offsets: Any) -> None:
    item = steps(text)
    assert (item.resize, item.crop, item.offsets) == (resize, crop, offsets)


@pytest.mark.parametrize(
    ("text", "spec", "reason"),
    [
        ("picture:scale=2", FIRST, "net.onnx has no input picture to preprocess; its inputs: image batchx3x224x224"),
        ("image:scale=2", TensorSpec("image", ("batch", 10), "float32"), "is no image of 1, 3 or 4 channels"),
        ("image:scale=2", TensorSpec("image", (1, 8, 9, 5), "float32"), "is no image of 1, 3 or 4 channels"),
        ("image:scale=2", TensorSpec("image", (1, 8, 9, 3), "uint8"), "is no image .* in floating point"),
        ("image:size=480x640,crop=500", FIRST, "crop 500x500 is larger than the image of 480x640"),
        ("image:size=480x640,resize=256", FIRST, "the steps lead to 256x341 where the model takes 224x224"),
        ("image:mean=1/2", FIRST, "mean has 2 numbers where the model takes 3 channels"),
        ("image:std=1/2/3/4", FIRST, "std has 4 numbers where the model takes 3 channels"),
        ("image:channels=rgb", TensorSpec("image", (1, 9, 9, 1), "float32"), "takes 1 channels, and .* one of gray"),
        ("image:scale=2", TensorSpec("image", (1, 3, "h", "w"), "float32"), "write size=HEIGHTxWIDTH"),
    ],
)
def test_steps_that_do_not_lead_to_the_model_are_refused(text: str, spec: TensorSpec, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        steps(text, spec)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("spec", "text", "raw"),
    [
        (FIRST, "image:size=480x640", ("batch", 480, 640, 3)),
        (LAST, "image:size=480x640", ("batch", 480, 640, 3)),
        (FIRST, "image:size=480x640,layout=NCHW", ("batch", 3, 480, 640)),
        (FIRST, "image:channels=bgra", ("batch", 224, 224, 4)),
        (FIRST, "image:channels=gray", ("batch", 224, 224, 1)),
        (TensorSpec("image", (2, 1, "h", "w"), "float32"), "image:size=480x640,crop=32", (2, 480, 640, 1)),
    ],
)
def test_the_files_take_the_image_of_the_application(spec: TensorSpec, text: str, raw: Any) -> None:
    item = steps(text, spec)
    assert (item.raw.shape, item.raw.dtype) == (raw, "uint8")
    other = TensorSpec("size", ("batch",), "float32")
    complete = Signature((other, item.spec), ())
    images = with_raw(complete, [item])
    assert images.inputs == (other, item.raw)
    assert without_raw(images, [item]) == complete
    assert without_raw(images.sized({"batch": 1}), [item]).inputs[1].shape[0] == (1 if raw[0] == "batch" else 2)


def test_an_image_in_both_layouts_has_that_of_the_source() -> None:
    spec = TensorSpec("image", (1, 3, 4, 3), "float32")
    assert steps("image:scale=2", spec).spec.layout == "NCHW"
    (item,) = resolve(Signature((spec,), ()), parse_all(["image:scale=2"]), "net.keras", "NHWC")
    assert item.spec.layout == "NHWC"


@pytest.mark.parametrize(
    ("channels", "pixel", "expected"),
    [
        ("rgb", [10, 20, 30], [10, 20, 30]),
        ("bgr", [30, 20, 10], [10, 20, 30]),
        ("rgba", [10, 20, 30, 99], [10, 20, 30]),
        ("bgra", [30, 20, 10, 99], [10, 20, 30]),
        ("gray", [10], [10, 10, 10]),
    ],
)
def test_one_matrix_has_order_scale_and_deviation(channels: str, pixel: Any, expected: Any) -> None:
    item = steps(f"image:channels={channels},scale=1/2,mean=1/2/3,std=4/5/8")
    actual = item.matrix() @ pixel + item.bias()
    np.testing.assert_allclose(actual, (np.array(expected) / 2 - [1, 2, 3]) / [4, 5, 8])
    assert item.mixes


def test_steps_without_an_effect_on_channels_need_no_matrix() -> None:
    assert not steps("image:size=480x640,mean=0,std=1,channels=rgb").mixes


def test_the_record_and_the_sentence_say_the_steps() -> None:
    from dataclasses import asdict

    item = steps("image:size=480x640,resize=256,crop=224,channels=bgr,scale=1/255,mean=0.5,std=0.1/0.2/0.3")
    assert str(item) == (
        "480x640 uint8 NHWC bgr, resized to 256x341, cropped to 224x224, scaled by 0.00392157, minus 0.5,"
        " divided by 0.1/0.2/0.3"
    )
    import json

    assert decode(Preprocessing, json.loads(json.dumps(asdict(item))), "source.json") == item
