"""Small random networks over the operators that all targets support, and their comparison with converted models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from edgekit.contracts.target import ConversionRequest
from edgekit.core.environment import plugin_registry
from edgekit.core.numerics.applicable_tolerances import tolerances_for_precision
from edgekit.core.numerics.output_comparison import Comparison, compare_output
from edgekit.core.numerics.rounding_error import measure_rounding
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._module import LoadedTorch

TARGETS = ("tflite", "onnx", "torchscript", "executorch")
SAMPLES = 8

_ACTIVATIONS = ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "tanh", "gelu", "leaky_relu", "silu", "elu")
_CLASSES = 5


@dataclass(frozen=True)
class Network:
    """The description of a random network.

    Attributes:
        shape: The input shape without the batch, channels first.
        layers: The layers, each a name and its numbers.
        softmax: Whether a softmax follows the classifier.
        seed: The seed of the weights and samples.
    """

    shape: tuple[int, ...]
    layers: tuple[tuple[Any, ...], ...]
    softmax: bool
    seed: int


_image_layers = st.one_of(
    st.tuples(st.just("conv"), st.integers(1, 12), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.booleans()),
    st.tuples(st.just("depthwise"), st.sampled_from([3, 5]), st.sampled_from([1, 2])),
    st.tuples(st.just("norm")),
    st.tuples(st.just("act"), st.sampled_from(_ACTIVATIONS)),
    st.tuples(st.just("max"), st.sampled_from([2, 3]), st.booleans()),
    st.tuples(st.just("mean"), st.sampled_from([2, 3]), st.booleans()),
    st.tuples(st.just("up"), st.sampled_from(["nearest", "bilinear", "corners"])),
    st.tuples(st.just("residual"), st.sampled_from([1, 3])),
    st.tuples(st.just("twice")),
    st.tuples(st.just("gate")),
    st.tuples(st.just("pad"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("scale")),
)
_row_layers = st.one_of(
    st.tuples(st.just("linear"), st.integers(1, 16), st.booleans()),
    st.tuples(st.just("layer_norm")),
    st.tuples(st.just("act"), st.sampled_from(_ACTIVATIONS)),
    st.tuples(st.just("attention")),
    st.tuples(st.just("conv1d"), st.sampled_from([1, 3])),
    st.tuples(st.just("skip")),
    st.tuples(st.just("scale")),
)


def networks() -> st.SearchStrategy[Network]:
    """Return a strategy for convolutional networks and networks on rows of features; it shrinks to few layers."""
    images = st.tuples(st.sampled_from([1, 3, 4]), st.sampled_from([8, 9, 12]), st.sampled_from([8, 11]))
    rows = st.tuples(st.sampled_from([5, 8]), st.sampled_from([6, 12]))
    return st.one_of(
        st.builds(Network, images, st.lists(_image_layers, max_size=7).map(tuple), st.booleans(), st.integers(0, 99)),
        st.builds(Network, rows, st.lists(_row_layers, max_size=7).map(tuple), st.booleans(), st.integers(0, 99)),
    )


class Attention(nn.Module):
    """Single-head self-attention over the rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(1, 2) / x.shape[-1] ** 0.5
        return x + scores.softmax(-1) @ self.value(x)


class Around(nn.Module):
    """A function of the input, or of the input and the output of an inner module."""

    def __init__(self, inner: nn.Module | None, function: Any) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x):
        return self.function(x) if self.inner is None else self.function(x, self.inner(x))


class Scale(nn.Module):
    """A factor and shift per channel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.factor, self.shift = nn.Parameter(torch.rand(shape) + 0.5), nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return x * self.factor + self.shift


def _activation(name: str) -> nn.Module:
    return Around(None, getattr(F, name))


def _convolution(shape: tuple[int, ...], out: int, kernel: int, stride: int, same: bool) -> nn.Module | None:
    if not same and min(shape[1:]) < kernel:
        return None
    return nn.Conv2d(shape[0], out, kernel, stride, kernel // 2 if same else 0)


def _normalization(shape: tuple[int, ...]) -> nn.Module:
    norm = nn.BatchNorm2d(shape[0], eps=1e-3)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.3, 2)
    return norm


def _pooling(shape: tuple[int, ...], kind: str, kernel: int, padded: bool) -> nn.Module | None:
    if min(shape[1:]) < kernel:
        return None
    padding = kernel // 2 if padded and kernel == 3 else 0
    if kind == "max":
        return nn.MaxPool2d(kernel, 2, padding)
    return nn.AvgPool2d(kernel, 2, padding, count_include_pad=False)


def _upsampling(shape: tuple[int, ...], mode: str) -> nn.Module | None:
    options = {"corners": {"mode": "bilinear", "align_corners": True}, "bilinear": {"mode": "bilinear"}}
    arguments = options.get(mode, {"mode": "nearest"})
    too_large = shape[1] * shape[2] > 200
    return None if too_large else Around(None, lambda x: F.interpolate(x, scale_factor=2.0, **arguments))


def _gate(shape: tuple[int, ...]) -> nn.Module:
    inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(shape[0], shape[0], 1), nn.Sigmoid())
    return Around(inner, torch.mul)


_IMAGE: dict[str, Callable[..., nn.Module | None]] = {
    "conv": _convolution,
    "depthwise": lambda shape, kernel, stride: nn.Conv2d(
        shape[0], shape[0], kernel, stride, kernel // 2, groups=shape[0]
    ),
    "norm": _normalization,
    "act": lambda _shape, name: _activation(name),
    "max": lambda shape, kernel, padded: _pooling(shape, "max", kernel, padded),
    "mean": lambda shape, kernel, padded: _pooling(shape, "mean", kernel, padded),
    "up": _upsampling,
    "residual": lambda shape, kernel: Around(nn.Conv2d(shape[0], shape[0], kernel, padding=kernel // 2), torch.add),
    "twice": lambda shape: None if shape[0] > 16 else Around(None, lambda x: torch.cat([x, F.relu(x)], 1)),
    "gate": _gate,
    "pad": lambda _shape, front, behind: Around(None, lambda x: F.pad(x, (front, behind, behind, front))),
    "scale": lambda shape: Scale((shape[0], 1, 1)),
}


def _along_rows(shape: tuple[int, ...], kernel: int) -> nn.Module:
    convolution = nn.Conv1d(shape[-1], shape[-1], kernel, padding=kernel // 2)
    return nn.Sequential(
        Around(None, lambda x: x.transpose(1, 2)), convolution, Around(None, lambda x: x.transpose(1, 2))
    )


_ROW: dict[str, Callable[..., nn.Module | None]] = {
    "linear": lambda shape, out, bias: nn.Linear(shape[-1], out, bias=bias),
    "layer_norm": lambda shape: nn.LayerNorm(shape[-1]),
    "act": lambda _shape, name: _activation(name),
    "attention": lambda shape: Attention(shape[-1]),
    "conv1d": _along_rows,
    "skip": lambda shape: Around(nn.Linear(shape[-1], shape[-1]), torch.add),
    "scale": lambda shape: Scale((shape[-1],)),
}


def build(network: Network) -> nn.Module:
    """Build the network with seeded weights, in eval mode; layers that do not fit the shape are skipped."""
    torch.manual_seed(network.seed)
    layers: list[nn.Module] = []
    x = torch.zeros(2, *network.shape)
    for layer in network.layers:
        shape = tuple(x.shape[1:])
        module = (_IMAGE if len(shape) == 3 else _ROW)[layer[0]](shape, *layer[1:])
        if module is not None:
            layers.append(module.eval())
            with torch.no_grad():
                x = layers[-1](x)
    axes = (2, 3) if x.ndim == 4 else (1,)
    layers.append(Around(None, lambda x: x.mean(axes)))
    layers.append(nn.Linear(x.shape[1] if x.ndim == 4 else x.shape[2], _CLASSES))
    if network.softmax:
        layers.append(nn.Softmax(-1))
    return nn.Sequential(*layers).eval()


def compared(network: Network) -> dict[str, Comparison]:
    """Convert the network to each target and compare, within tolerances from the network's own rounding error."""
    signature = Signature(
        (TensorSpec("x", ("batch", *network.shape), "float32"),), (TensorSpec("y", ("batch", _CLASSES), "float32"),)
    )
    source = LoadedTorch(build(network), signature)
    inputs = {"x": np.random.default_rng(network.seed).standard_normal((SAMPLES, *network.shape)).astype(np.float32)}
    reference = source.run(inputs)
    rounding = measure_rounding(reference, source.run_float64(inputs)).get("y")
    tolerances = tolerances_for_precision("float32", rounding=rounding)
    comparisons = {}
    for name in TARGETS:
        target = plugin_registry.load("edgekit.targets", name, "TARGET")
        runtime = plugin_registry.load("edgekit.runtimes", target.runtime, "RUNTIME")
        fixed = signature if target.symbolic else signature.sized({"batch": 1})
        with tempfile.TemporaryDirectory() as folder:
            artifact = target.convert(source.at(fixed, {}), ConversionRequest("float32", Path(folder)))
            session = runtime.open(Path(folder, artifact.file), threads=1, signature=artifact.signature)
            names = [spec.name for spec in session.signature.inputs]
            outputs = session.infer(dict(zip(names, inputs.values(), strict=True)))
        comparisons[name] = compare_output(
            name, reference["y"], next(iter(outputs.values())), tolerances, classifier=False
        )
    return comparisons
