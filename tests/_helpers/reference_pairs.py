"""Copy the Keras weights of a reference model into its PyTorch counterpart, layer by layer."""

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
    """Return the untrained Keras model and its PyTorch counterpart, seeded."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import torch

    keras.utils.set_random_seed(1)
    torch.manual_seed(1)
    keras_model = load_function(MODELS / name / "keras_model.py", "build")(**options)
    return keras_model, load_function(MODELS / name / "torch_model.py", "build")(**options)


def randomise(keras_model: Any, seed: int = 0) -> None:
    """Randomise all weights and batch norm statistics, since values of zero or one would hide a mistake."""
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
    """Split a dense layer with one bias row per frame into a linear layer and the added positions."""
    kernel, bias = map(np.asarray, layer.weights)
    yield [kernel.T]
    yield [bias]


def _attention(layer: Any) -> Iterator[Group]:
    width = layer.query_dense.kernel.shape[0]
    for dense in (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense):
        kernel, bias = map(np.asarray, dense.weights)
        yield [kernel.reshape(width, width).T, bias.reshape(-1)]


def _gru(layer: Any) -> Iterator[Group]:
    """Reorder the gates: Keras stores z, r, h along the last axis, PyTorch r, z, n along the first."""
    kernel, recurrent, bias = map(np.asarray, layer.weights)

    def gates(array: np.ndarray) -> np.ndarray:
        update, reset, new = np.split(array, 3, axis=-1)
        return np.concatenate([reset, update, new], axis=-1).T

    yield [gates(kernel), gates(recurrent), gates(bias[0]), gates(bias[1])]


def _lstm(layer: Any) -> Iterator[Group]:
    """Transpose the gates, i, f, c, o in both; PyTorch's second bias is not a parameter of the model."""
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
    """Return the weights of each layer in the shapes and the order of PyTorch."""
    converted: list[Group] = []
    flattened: tuple[int, ...] = ()
    for layer in keras_model.layers:
        if layer.weights:
            groups = list(_LAYERS[type(layer).__name__](layer))
            converted += [_channels_first(groups[0], flattened)] if flattened else groups
            flattened = ()
        if type(layer).__name__ == "Flatten":
            flattened = tuple(layer.input.shape[1:])
    return converted


def _channels_first(group: Group, shape: tuple[int, ...]) -> Group:
    """Reorder the inputs of a dense layer after Flatten: Keras flattens (H, W, C), PyTorch (C, H, W)."""
    kernel, *rest = group
    return [kernel.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(kernel), -1), *rest]


def torch_groups(module: Any) -> list[list[Any]]:
    """Return the parameters and statistics of each module, without the batch counter of a batch norm."""
    groups = []
    for part in module.modules():
        tensors = {**part._parameters, **part._buffers}
        named = {name: tensor for name, tensor in tensors.items() if name not in part._non_persistent_buffers_set}
        group = [tensor for name, tensor in named.items() if tensor is not None and name != "num_batches_tracked"]
        if group:
            groups.append(group)
    return groups


def _shapes(group: list[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(array.shape) for array in group)


def pairs(keras_model: Any, module: Any) -> Iterator[tuple[Group, list[Any]]]:
    """Pair each Keras layer with the first unpaired module of the same shapes; every module must be paired."""
    unpaired = torch_groups(module)
    for group in keras_groups(keras_model):
        shapes = _shapes(group)
        index = next((index for index, tensors in enumerate(unpaired) if _shapes(tensors) == shapes), None)
        assert index is not None, f"the PyTorch model has no unpaired module with shapes {shapes}"
        yield group, unpaired.pop(index)
    assert not unpaired, f"the Keras model has no layer for {[_shapes(tensors) for tensors in unpaired]}"


def copy_weights(keras_model: Any, module: Any) -> None:
    """Copy the Keras weights into the PyTorch model."""
    import torch

    with torch.no_grad():
        for group, tensors in pairs(keras_model, module):
            for array, tensor in zip(group, tensors, strict=True):
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))
