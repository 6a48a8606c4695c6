"""Forms of quantized files: what they are made of, their tags, and input that is refused."""

import itertools

import pytest

from edgekit.core.errors import InputError
from edgekit.core.values.deployment_presets import PRESETS
from edgekit.core.values.quantization_form import (
    FORM_OPTIONS,
    QuantizationForm,
    is_form_tag,
    parse_range,
    parse_ranges,
)
from edgekit.core.values.specs import Variant


def forms():
    """All combinations of some values."""
    for preset, read, written, per_tensor, symmetric, ranges in itertools.product(
        (None, *PRESETS), (None, "uint8"), (None, "float32"), (False, True), (False, True), ({}, {"a": (0.0, 1.0)})
    ):
        yield QuantizationForm(read, written, per_tensor, symmetric, ranges, preset)


def test_every_tag_is_part_of_a_variant_that_reads_back():
    tags = {form.tag for form in forms()}
    assert len(tags) == 2 * 2 * 2 * 2 * 2 * (1 + len(PRESETS))  # no two forms have one tag
    for tag in filter(None, tags):
        variant = Variant("tflite", "int8", tag)
        assert is_form_tag(tag)
        assert Variant.parse(str(variant)) == variant
        assert Variant.parse(f"{variant}-tuned").is_tuned
        assert not variant.is_tuned


@pytest.mark.parametrize("text", ["tflite:int8-", "tflite:int8-fast", "tflite:int8-per", "tflite:int8-tuned-tuned"])
def test_a_tag_of_unknown_words_is_refused(text):
    with pytest.raises(InputError, match="unknown precision"):
        Variant.parse(text)


def test_a_form_survives_the_manifest():
    for form in forms():
        assert QuantizationForm.from_dict(form.to_dict()) == form
        assert set(form.to_dict()) <= set(FORM_OPTIONS)
        assert bool(form) == (form != QuantizationForm())


@pytest.mark.parametrize("data", [{"per_tensor": 1}, {"colour": "red"}, {"ranges": {"a": [0]}}, {"ranges": [0, 1]}])
def test_a_damaged_form_of_a_manifest_is_refused(data):
    with pytest.raises(InputError, match=r"options\.form"):
        QuantizationForm.from_dict(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("image=0..1", ("image", (0.0, 1.0))), ("a=b=-1e-3...5", ("a=b", (-1e-3, 0.5)))],
)
def test_a_range_names_a_tensor_and_two_ends(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["image", "image=0", "=0..1", "image=0:1", "image=a..b", "image=0..1..2"])
def test_a_malformed_range_is_refused(text):
    with pytest.raises(InputError, match=r"write NAME=LOW\.\.HIGH"):
        parse_range(text)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(1, 0, "reversed"), (0, 0, "empty"), (0, float("nan"), "finite"), (0.5, 1, "contain 0"), (-2, -1, "contain 0")],
)
def test_a_range_that_no_integers_stand_for_is_refused(low, high, message):
    with pytest.raises(InputError, match=message):
        QuantizationForm(ranges={"image": (low, high)})


def test_two_ranges_for_one_tensor_are_refused():
    with pytest.raises(InputError, match="two ranges for image"):
        parse_ranges(["image=0..1", "image=0..2"])


def test_a_type_that_the_preset_does_not_take_is_refused():
    with pytest.raises(InputError, match="litert-js takes no int8 inputs; it takes: float32, int32"):
        QuantizationForm("int8", preset="litert-js").resolved()


def test_a_preset_sets_what_is_left_open():
    assert QuantizationForm(preset="litert-js").resolved().inference_output_type == "float32"
