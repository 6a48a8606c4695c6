"""Converters' messages as sentences about the operator."""

from __future__ import annotations

import pytest

from edgekit.stages.conversion.explained_errors import missing_operator

MESSAGES = {
    "aten.bitwise_not.default": "Lowering not found: aten.bitwise_not.default While executing %not",
    "aten.linalg_matrix_exp.default": (
        "Operator torch._ops.aten.linalg_matrix_exp.default is not in Core ATen opset (https://pytorch.org)"
    ),
    "aten::_fft_r2c": "Missing out variants: {'aten::_fft_r2c'}",
    "aten.foo.default": "No ONNX function found for <OpOverload(op='aten.foo', overload='default')>",
    "tfl.div": "x.py:3:0: error: failed to legalize operation 'tfl.div' that was explicitly marked illegal",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_operator_is_named_with_a_way_that_works(name):
    sentence = missing_operator(MESSAGES[name], "TFLite")
    assert sentence is not None
    assert sentence.startswith(f"the operator {name.removesuffix('.default')}")
    assert sentence.endswith("; write it with other operators, or export to onnx or torchscript")


@pytest.mark.parametrize(
    "place", ['File "/home/user/net.py", line 7, in forward\n    return ~x', "/home/user/net.py:7:0: error:"]
)
def test_the_line_of_the_users_code_is_named(place):
    library = 'File "/usr/lib/python3/site-packages/torch/nn/modules/module.py", line 1'
    message = f"Lowering not found: aten.bitwise_not.default\nOriginal traceback:\n{place}\n{library}"
    assert "the operator aten.bitwise_not, of net.py, line 7, has no counterpart" in str(missing_operator(message, "X"))


def test_complex_numbers_are_named():
    message = 'Unsupported ir element type: complex<f32>\nOriginal traceback:\nFile "/home/user/net.py", line 7, in f'
    assert str(missing_operator(message, "TFLite")).startswith(
        "complex numbers, of net.py, line 7, have no counterpart in TFLite files; compute their real and imaginary"
    )


def test_other_messages_stay():
    assert missing_operator("something else", "TFLite") is None
