"""The Keras weights of a reference model in its PyTorch twin: layer by layer, in PyTorch's shapes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.environment.user_code import load_function

MODELS = Path(__file__).parents[2] / "models"
NAMES = tuple(sorted(path.parent.name for path in MODELS.glob("*/model.toml")))
Group = list[np.ndarray]


def build(name: str, **options: Any) -> tuple[Any, Any]:
    """The untrained Keras model and its PyTorch twin, seeded."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import torch

    keras.utils.set_random_seed(1)
    torch.manual_seed(1)
    keras_model = load_function(MODELS / name / "keras_model.py", "build")(**options)
    return keras_model, load_function(MODELS / name / "torch_model.py", "build")(**options)


def randomise(keras_model: Any, seed: int = 0) -> None:
    """Every weight and every statistic of a batch norm: what stays at zero or one would hide a mistake."""
    rng = np.random.default_rng(seed)
    for weight in keras_model.weights:
        shape = tuple(weight.shape)
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        else:
            fan_in = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])  # a depthwise kernel is (H, W, channels, 1)
            spread = 0.1 if len(shape) < 2 else np.sqrt(2 / fan_in)
            weight.assign(rng.normal(0, spread, shape))


def _dense(layer: Any) -> Iterator[Group]:
    kernel, *bias = map(np.asarray, layer.weights)
    yield [kernel.T, *bias]


def _convolution(layer: Any) -> Iterator[Group]:
    kernel, *bias = map(np.asarray, layer.weights)
    yield [kernel.transpose(3, 2, 0, 1), *bias]  # (H, W, in, out) -> (out, in, H, W)


def _depthwise(layer: Any) -> Iterator[Group]:
    kernel, *bias = map(np.asarray, layer.weights)
    yield [kernel.transpose(2, 3, 0, 1), *bias]  # (H, W, channels, 1) -> (channels, 1, H, W)


def _norm(layer: Any) -> Iterator[Group]:
    yield [np.asarray(weight) for weight in layer.weights]


def _projection(layer: Any) -> Iterator[Group]:
    """A dense layer whose bias has a row for each frame: a linear layer, and the positions that are added."""
    kernel, bias = map(np.asarray, layer.weights)
    yield [kernel.T]
    yield [bias]


def _attention(layer: Any) -> Iterator[Group]:
    width = layer.query_dense.kernel.shape[0]
    for dense in (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense):
        kernel, bias = map(np.asarray, dense.weights)
        yield [kernel.reshape(width, width).T, bias.reshape(-1)]


def _gru(layer: Any) -> Iterator[Group]:
    """Keras has the gates z, r, h along the last axis, PyTorch r, z, n along the first."""
    kernel, recurrent, bias = map(np.asarray, layer.weights)

    def gates(array: np.ndarray) -> np.ndarray:
        update, reset, new = np.split(array, 3, axis=-1)
        return np.concatenate([reset, update, new], axis=-1).T

    yield [gates(kernel), gates(recurrent), gates(bias[0]), gates(bias[1])]


def _lstm(layer: Any) -> Iterator[Group]:
    """The gates i, f, c, o in both. PyTorch's second bias is no parameter of the twin."""
    kernel, recurrent, bias = map(np.asarray, layer.weights)
    yield [kernel.T, recurrent.T, bias]


_LAYERS = {
    "Dense": _dense,
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "BatchNormalization": _norm,
    "LayerNormalization": _norm,
    "EinsumDense": _projection,
    "MultiHeadAttention": _attention,
    "GRU": _gru,
    "LSTM": _lstm,
}


def keras_groups(keras_model: Any) -> list[Group]:
    """The weights of each layer in the shapes and the order that PyTorch has them in."""
    found: list[Group] = []
    flattened: tuple[int, ...] = ()
    for layer in keras_model.layers:
        if layer.weights:
            groups = list(_LAYERS[type(layer).__name__](layer))
            found += [_channels_first(groups[0], flattened)] if flattened else groups
            flattened = ()
        if type(layer).__name__ == "Flatten":
            flattened = tuple(layer.input.shape[1:])
    return found


def _channels_first(group: Group, shape: tuple[int, ...]) -> Group:
    """A dense layer behind Flatten: Keras flattens (H, W, C), PyTorch (C, H, W)."""
    kernel, *rest = group
    return [kernel.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(kernel), -1), *rest]


def torch_groups(module: Any) -> list[list[Any]]:
    """The parameters and statistics of each module, without the batch counter of a batch norm."""
    found = []
    for part in module.modules():
        own = {**part._parameters, **part._buffers}
        named = {name: tensor for name, tensor in own.items() if name not in part._non_persistent_buffers_set}
        group = [tensor for name, tensor in named.items() if tensor is not None and name != "num_batches_tracked"]
        if group:
            found.append(group)
    return found


def _shapes(group: list[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(array.shape) for array in group)


def pairs(keras_model: Any, module: Any) -> Iterator[tuple[Group, list[Any]]]:
    """Each Keras layer with the first module of the same shapes that is still free. Nothing may be left over."""
    free = torch_groups(module)
    for group in keras_groups(keras_model):
        index = next((index for index, item in enumerate(free) if _shapes(item) == _shapes(group)), None)
        assert index is not None, f"the PyTorch twin has no (other) module with {_shapes(group)}"
        yield group, free.pop(index)
    assert not free, f"the Keras model has no layer for {[_shapes(item) for item in free]}"


def copy_weights(keras_model: Any, module: Any) -> None:
    """Puts the Keras weights into the PyTorch twin."""
    import torch

    with torch.no_grad():
        for group, tensors in pairs(keras_model, module):
            for array, tensor in zip(group, tensors, strict=True):
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))
