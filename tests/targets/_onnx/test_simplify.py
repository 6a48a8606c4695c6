"""Versions of ONNX operator sets and file formats: conversion, and messages for what is not supported."""

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.core.errors import InputError, StepFailed
from edgekit.targets._onnx.simplify import at_opset, opset, set_ir_version


def model(operator="Relu", version=17):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "model", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])


def test_a_model_is_converted_to_another_operator_set():
    assert opset(at_opset(model(), 15)) == 15
    unchanged = model()
    assert at_opset(unchanged, None) is unchanged
    assert at_opset(unchanged, 17) is unchanged


@pytest.mark.parametrize("version", [6, onnx.defs.onnx_opset_version() + 1])
def test_an_operator_set_outside_the_supported_range_is_rejected(version):
    newest = onnx.defs.onnx_opset_version()
    with pytest.raises(InputError) as caught:
        at_opset(model(), version)
    assert str(caught.value) == (f"opset {version} is not supported: the installed onnx package supports 7 to {newest}")


def test_an_operator_that_the_older_set_does_not_have_is_reported():
    with pytest.raises(StepFailed, match=r"onnx cannot convert this graph from opset 20 to 17 \(.+\)"):
        at_opset(model("Gelu", 20), 17)


@pytest.mark.parametrize("version", [7, onnx.IR_VERSION + 1])
def test_a_file_format_outside_the_supported_range_is_rejected(version):
    with pytest.raises(InputError) as caught:
        set_ir_version(model(), version)
    assert str(caught.value) == (
        f"IR version {version} is not supported: opset 17 needs at least 8,"
        f" and the installed onnx package supports at most {onnx.IR_VERSION}"
    )


def test_the_file_format_is_set():
    changed = model()
    set_ir_version(changed, 9)
    assert changed.ir_version == 9
