"""Tolerances from a network's own rounding error: another runtime passes, a wrong conversion does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit.contracts.target import ConversionRequest
from edgekit.core.numerics.applicable_tolerances import ROUNDING_FACTOR, tolerances_for_precision
from edgekit.core.numerics.output_comparison import compare_output
from edgekit.core.numerics.rounding_error import measure_rounding
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.onnxruntime import RUNTIME
from edgekit.sources._module import LoadedTorch
from edgekit.targets.onnx import TARGET

IMAGES = Signature((TensorSpec("x", ("batch", 8, 9, 9), "float32"),), (TensorSpec("y", ("batch", 10), "float32"),))
ROWS = Signature((TensorSpec("x", ("batch", 12, 32), "float32"),), (TensorSpec("y", ("batch", 10), "float32"),))


class Between(nn.Module):
    """A network around one operation, with as many layers before it as after it."""

    def __init__(self, operation, *, images):
        super().__init__()
        torch.manual_seed(0)
        self.images = images
        width = 8 if images else 32
        self.before, self.after = (
            nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) if images else nn.Linear(32, 32) for _ in range(4))
            for _ in range(2)
        )
        self.head = nn.Linear(width, 10)
        for layer in (*self.before, *self.after, self.head):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # keeps the variance of activations constant
        self.operation = operation

    def forward(self, x):
        for layer in self.before:
            x = F.relu(layer(x)) + 0.1 * x
        x = self.operation(x)
        for layer in self.after:
            x = F.relu(layer(x)) + 0.1 * x
        return self.head(x.mean((2, 3)) if self.images else x.mean(1))


def normalized(epsilon):
    """Return a batch norm with the statistics of this network's activations."""

    def operation(x):
        mean, variance = torch.full((8,), 0.1, dtype=x.dtype), torch.full((8,), 0.2, dtype=x.dtype)
        return F.batch_norm(x, mean, variance, eps=epsilon)

    return operation


# The operation of the source, a wrong conversion of it, and whether the network runs on images.
FAULTS = {
    "softmax over the wrong axis": (lambda x: F.softmax(x, -1), lambda x: F.softmax(x, -2), False),
    "epsilon of layer norm 1e-3 for 1e-5": (
        lambda x: F.layer_norm(x, (32,), eps=1e-5),
        lambda x: F.layer_norm(x, (32,), eps=1e-3),
        False,
    ),
    "epsilon of layer norm 1e-6 for 1e-5": (
        lambda x: F.layer_norm(x, (32,), eps=1e-5),
        lambda x: F.layer_norm(x, (32,), eps=1e-6),
        False,
    ),
    "epsilon of batch norm 1e-3 for 1e-5": (normalized(1e-5), normalized(1e-3), True),
    "padding on the other side": (
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2),
        lambda x: F.max_pool2d(F.pad(x, (1, 0, 1, 0)), 2),
        True,
    ),
    "padding counted in an average": (
        lambda x: F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=True),
        True,
    ),
    "align_corners": (
        lambda x: F.interpolate(x, (13, 13), mode="bilinear", align_corners=False),
        lambda x: F.interpolate(x, (13, 13), mode="bilinear", align_corners=True),
        True,
    ),
    "nearest with another rounding": (
        lambda x: F.interpolate(x, (13, 13), mode="nearest"),
        lambda x: F.interpolate(x, (13, 13), mode="nearest-exact"),
        True,
    ),
    "gelu approximated by tanh": (F.gelu, lambda x: F.gelu(x, approximate="tanh"), False),
    "slope of a leaky relu": (
        lambda x: F.leaky_relu(x - 0.1, 0.01),
        lambda x: F.leaky_relu(x - 0.1, 0.011),
        False,
    ),
}


def samples(signature):
    (spec,) = signature.inputs
    return {"x": np.random.default_rng(1).standard_normal((32, *spec.shape[1:])).astype(np.float32)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.parametrize("case", FAULTS)
def test_another_runtime_passes_and_a_wrong_conversion_does_not(tmp_path: Path, case):
    operation, wrong_operation, images = FAULTS[case]
    signature = IMAGES if images else ROWS
    source = LoadedTorch(Between(operation, images=images).eval(), signature)
    inputs = samples(signature)
    reference = source.run(inputs)
    (rounding,) = measure_rounding(reference, source.run_float64(inputs)).values()
    tolerances = tolerances_for_precision("float32", rounding=rounding)

    TARGET.convert(source, ConversionRequest("float32", tmp_path))
    converted = RUNTIME.open(tmp_path / "model.onnx", threads=1).infer(inputs)
    assert compare_output("y", reference["y"], converted["y"], tolerances, classifier=False).passed

    faulty = LoadedTorch(Between(wrong_operation, images=images).eval(), signature).run(inputs)
    assert not compare_output("y", reference["y"], faulty["y"], tolerances, classifier=False).passed


def test_a_deeper_network_has_a_wider_tolerance():
    def tolerance(depth):
        torch.manual_seed(0)
        layers = [layer for _ in range(depth) for layer in (nn.Linear(32, 32), nn.LayerNorm(32))]
        source = LoadedTorch(nn.Sequential(*layers).eval(), ROWS)
        inputs = samples(ROWS)
        (rounding,) = measure_rounding(source.run(inputs), source.run_float64(inputs)).values()
        return tolerances_for_precision("float32", rounding=rounding).max_abs_error, rounding

    (shallow, _), (deep, rounding) = tolerance(1), tolerance(40)
    assert deep > 2 * shallow
    assert deep == pytest.approx(ROUNDING_FACTOR * rounding.max_abs_error / max(1.0, rounding.scale))


def test_code_that_casts_to_float32_has_no_float64_result():
    class CastsToFloat32(nn.Module):
        def forward(self, x):
            return x.float() @ torch.ones(32, 10)

    source = LoadedTorch(CastsToFloat32().eval(), ROWS)
    inputs = samples(ROWS)
    assert measure_rounding(source.run(inputs), source.run_float64(inputs)) == {}
