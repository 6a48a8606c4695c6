"""Variants, signatures and routes."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.values.precisions import precision_names
from edgekit.core.values.specs import (
    TUNED,
    Quantization,
    Route,
    Signature,
    TensorSpec,
    Variant,
)

SEEDED = settings(derandomize=True, max_examples=60)

finite = st.floats(allow_nan=False, allow_infinity=False)
quantizations = st.builds(
    Quantization,
    st.lists(finite, min_size=1, max_size=4).map(tuple),
    st.lists(st.integers(-32768, 32767), min_size=1, max_size=4).map(tuple),
    st.none() | st.integers(0, 3),
)
dims = st.lists(st.integers(1, 4096) | st.text(min_size=1, max_size=5), max_size=4).map(tuple)
tensors = st.builds(
    TensorSpec,
    st.text(max_size=8),
    dims,
    st.sampled_from(["float32", "int8", "uint8", "int64"]),
    st.none() | st.sampled_from(["NHWC", "NCHW"]),
    st.none() | quantizations,
)
signatures = st.builds(
    Signature, st.lists(tensors, max_size=3).map(tuple), st.lists(tensors, min_size=1, max_size=3).map(tuple)
)


@SEEDED
@given(signatures)
def test_a_signature_survives_a_json_round_trip(signature):
    assert Signature.from_dict(json.loads(json.dumps(asdict(signature)))) == signature


@pytest.mark.parametrize("precision", precision_names())
def test_a_variant_prints_as_it_is_written(precision):
    text = f"lite-interpreter:{precision}"
    variant = Variant.parse(text)
    assert variant == Variant("lite-interpreter", precision)
    assert str(variant) == text


def test_a_tuned_variant_is_read_as_it_is_written():
    variant = Variant("tflite", "int8", TUNED)
    assert str(variant) == "tflite:int8-tuned"
    assert Variant.parse(str(variant)) == variant


@pytest.mark.parametrize("text", ["tflite", ":int8", "", ":"])
def test_a_variant_without_target_or_colon_is_rejected_with_an_example(text):
    with pytest.raises(InputError) as caught:
        Variant.parse(text)
    assert str(caught.value) == f"'{text}' is not a variant; write it target:precision, for example tflite:int8"


@pytest.mark.parametrize("text", ["tflite:", "tflite:int9", "tflite:int8:int8"])
def test_a_variant_of_unknown_precision_is_rejected(text):
    with pytest.raises(InputError, match="unknown precision"):
        Variant.parse(text)


def test_the_slug_of_a_variant_is_a_folder_name():
    assert Variant("tflite", "int16x8").slug == "tflite-int16x8"


def test_variants_sort_by_target_and_then_by_precision():
    names = ["tflite:int8", "onnx:int8", "tflite:float32"]
    assert [str(variant) for variant in sorted(map(Variant.parse, names))] == [
        "onnx:int8",
        "tflite:float32",
        "tflite:int8",
    ]


@pytest.mark.parametrize(("shape", "expected"), [((1, 28), 1), (("batch", 28), None), ((), None)])
def test_only_a_numeric_first_dimension_is_a_fixed_batch(shape, expected):
    assert TensorSpec("x", shape, "float32").fixed_batch == expected


def test_fixing_the_batch_keeps_everything_else():
    quantization = Quantization((0.5,), (3,))
    spec = TensorSpec("x", ("batch", 28, 28), "int8", "NHWC", quantization)
    assert spec.sized({"batch": 4}) == TensorSpec("x", (4, 28, 28), "int8", "NHWC", quantization)


def test_a_tensor_prints_name_shape_and_dtype():
    assert str(TensorSpec("image", ("batch", 28, 28, 1), "float32")) == "image batchx28x28x1 float32"
    assert str(TensorSpec("loss", (), "float32")) == "loss scalar float32"


def test_a_direct_route_has_no_bridges():
    route = Route(("keras", "tflite"))
    assert (route.source_kind, route.converter_kind, route.bridges) == ("keras", "keras", ())
    assert str(route) == "keras -> tflite"


def test_a_route_with_bridges_lists_them_in_order():
    route = Route(("onnx", "torch", "exported", "executorch"))
    assert (route.source_kind, route.converter_kind) == ("onnx", "exported")
    assert route.bridges == (("onnx", "torch"), ("torch", "exported"))


IMAGE = TensorSpec("image", ("batch", 3, "height", "width"), "float32")
TOKENS = TensorSpec("tokens", ("batch", "seq"), "int64")


def test_sizes_replace_their_symbols_and_leave_the_others():
    assert IMAGE.sized({"batch": 1, "width": 48, "seq": 7}).shape == (1, 3, "height", 48)
    assert IMAGE.sized({}) == IMAGE


def test_a_size_replaces_its_symbol_in_inputs_and_outputs():
    sized = Signature((IMAGE, TOKENS), (TensorSpec("scores", ("batch", "seq", 5), "float32"),)).sized({"batch": 2})
    assert [spec.shape for spec in sized.inputs] == [(2, 3, "height", "width"), (2, "seq")]
    assert sized.outputs[0].shape == (2, "seq", 5)


@SEEDED
@given(signatures)
def test_a_signature_with_all_sizes_has_no_symbols(signature):
    sized = signature.sized(dict.fromkeys(signature.symbols, 3))
    assert sized.symbols == ()
    assert all(isinstance(dim, int) for spec in sized.inputs for dim in spec.shape)
    assert signature.sized({}) == signature


def test_symbols_are_listed_once_in_the_order_of_the_inputs():
    signature = Signature((TOKENS, IMAGE), (TensorSpec("y", ("batch", "n_boxes"), "float32"),))
    assert signature.symbols == ("batch", "seq", "height", "width")


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([("batch", 3)], "batch"),
        ([("n", 3), ("n",)], "n"),
        ([("n", 3), ("m",)], None),
        ([("n", 3), ()], None),
        ([("n", 3), (1, 3)], None),
        ([(1, 3)], None),
        ([()], None),
        ([], None),
    ],
)
def test_the_batch_is_the_first_dimension_that_all_inputs_share(shapes, expected):
    inputs = tuple(TensorSpec(f"x{index}", shape, "float32") for index, shape in enumerate(shapes))
    assert Signature(inputs, ()).batch == expected


def test_a_signature_takes_the_order_of_another_one_of_the_same_names():
    a, b, c = (TensorSpec(name, ("batch", 2), "float32") for name in "abc")
    other = Signature((b, a), (replace(c, shape=(1,)), replace(a, dtype="int8")))
    assert Signature((a, b), (a, c)).ordered_as(other) == Signature((b, a), (c, a))
    # One side with other names keeps its order.
    assert Signature((a, b), (b, a)).ordered_as(other) == Signature((b, a), (b, a))
