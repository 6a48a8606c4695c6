"""Inputs that become constants: how they are written, and which values an input can have."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.errors import InputError
from edgekit.core.values.fixed_inputs import all_inputs, fix_inputs, parse_fixed, without_fixed
from edgekit.core.values.specs import Signature, TensorSpec

SIGNATURE = Signature(
    (
        TensorSpec("state", (2, "batch", 3), "float32"),
        TensorSpec("x", ("batch", 4), "float32"),
        TensorSpec("rate", (), "int64"),
        TensorSpec("flags", ("batch", 2), "bool"),
        TensorSpec("level", (1,), "uint8"),
    ),
    (),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sr=16000", ("sr", 16000)),
        ("a=b=-3", ("a=b", -3)),
        ("gain=1e-3", ("gain", 0.001)),
        ("gain=2.0", ("gain", 2.0)),
        ("mask=True", ("mask", True)),
    ],
)
def test_a_value_keeps_its_type(text, expected):
    name, value = parse_fixed(text)
    assert (name, value, type(value)) == (*expected, type(expected[1]))


@pytest.mark.parametrize(
    "text", ["sr", "=1", "sr=", "sr=fast", "sr=nan", "sr=1e999", f"sr={2**63}", "sr=" + "9" * 5000]
)
def test_a_text_without_a_number_is_refused(text):
    with pytest.raises(InputError, match="write NAME=VALUE with a number, true or false, such as sr=16000"):
        parse_fixed(text)


def test_fixed_inputs_leave_the_signature_and_return_to_their_places():
    fixed = fix_inputs(SIGNATURE, {"flags": True, "rate": 8000}, "net.onnx")
    assert [(item.spec.name, item.position) for item in fixed] == [("rate", 2), ("flags", 3)]
    assert fixed[0].array() == np.int64(8000)
    assert fixed[1].array().tolist() == [[True, True]]
    rest = without_fixed(SIGNATURE, fixed)
    assert [spec.name for spec in rest.inputs] == ["state", "x", "level"]
    assert all_inputs(rest, fixed) == SIGNATURE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sr": 1}, r"net.onnx has no input sr to fix; its inputs: state 2xbatchx3 float32; x batchx4 float32; "),
        ({"rate": True}, r"the input rate scalar int64 is fixed to True; it takes a number"),
        (
            {"rate": 0.5},
            r"the input rate scalar int64 is fixed to 0.5; it takes integers from -9223372036854775808 to ",
        ),
        ({"level": 256}, r"it takes integers from 0 to 255"),
        ({"flags": 1}, r"the input flags batchx2 bool is fixed to 1; it takes true or false"),
        ({"state": 0}, r"cannot be fixed while its size batch is unknown; declare the input with its size"),
    ],
)
def test_what_an_input_cannot_be_is_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        fix_inputs(SIGNATURE, values, "net.onnx")


def test_one_input_has_to_vary():
    only = Signature((TensorSpec("x", ("batch", 4), "float32"),), ())
    with pytest.raises(InputError, match=r"net\.onnx: all inputs are fixed; leave one that varies"):
        fix_inputs(only, {"x": 1}, "net.onnx")
