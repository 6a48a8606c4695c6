"""The description of a model file: unknown figures are None and not zero or less."""

import pytest

from edgekit.core.values.specs import ModelDescription, OpCount, Signature


def described(**changes):
    base = {
        "format": "onnx",
        "signature": Signature((), ()),
        "ops": (OpCount("Conv", 1),),
        "tensors": 3,
        "parameters": 10,
        "weight_bytes": 40,
        "macs": 1000,
        "activation_bytes": 64,
        "quantized_tensors": 0,
    }
    return ModelDescription(**{**base, **changes})


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("macs", -4096, None), ("macs", 0, 0), ("activation_bytes", 0, None), ("mac_outputs", -1, None), ("macs", 7, 7)],
)
def test_figures_that_a_shape_cannot_give_are_unknown(name, value, shown):
    assert getattr(described(**{name: value}), name) == shown


def test_a_graph_without_operators_has_no_activations():
    assert described(ops=(), activation_bytes=0).activation_bytes == 0
