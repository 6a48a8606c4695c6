"""Workarounds for faults of Keras's torch backend, in force while a model is loaded and traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array


@contextlib.contextmanager
def torch_backend_mended() -> Iterator[None]:
    """Replace functions of the torch backend (Keras 3.15) that fail or compute other values than those of TensorFlow.

    Tests notice when a fault is gone; docs/upstream.md lists them.
    """
    from keras.src.backend.torch import image, layer, nn

    patches = (
        (image, "F", _TensorFlowResize(image.F)),
        (nn, "average_pool", _average_pool(nn)),
        (layer.TorchLayer, "_track_variables", _track_variables),
    )
    originals = [getattr(owner, name) for owner, name, _ in patches]
    for owner, name, replacement in patches:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for (owner, name, _), original in zip(patches, originals, strict=True):
            setattr(owner, name, original)


class _TensorFlowResize:
    """PyTorch's functions, with the bicubic interpolation of TensorFlow.

    PyTorch's kernel has the parameter -0.75 and repeats the border; TensorFlow's has -0.5, and leaves out what lies
    outside (`ResizeBicubic` with half-pixel centres).
    """

    def __init__(self, functions: Any) -> None:
        self._functions = functions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._functions, name)

    def interpolate(self, images: Any, size: Any, mode: str, align_corners: Any, antialias: bool) -> Any:
        """Resize images of shape (N, C, H, W) to `size`, (height, width)."""
        import torch

        sizes = (*images.shape[2:], *size)
        if mode != "bicubic" or antialias or not all(isinstance(length, int) for length in sizes):
            return self._functions.interpolate(
                images, size=size, mode=mode, align_corners=align_corners, antialias=antialias
            )
        height, width = (
            torch.tensor(cubic_weights(before, after), dtype=images.dtype)
            for before, after in zip(images.shape[2:], size, strict=True)
        )
        return torch.matmul(torch.matmul(height, images), width.T)


def cubic_weights(before: int, after: int) -> Array:
    """Return the matrix of TensorFlow's cubic interpolation along one axis.

    Keys, "Cubic convolution interpolation for digital image processing" (1981), equation 4 with a = -0.5.

    Args:
        before: The length of the axis.
        after: The length after resizing.

    Returns:
        Weights of shape (after, before); each row sums to 1.
    """
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    first = np.floor(centres)
    fraction = np.round((centres - first) * 1024) / 1024  # TensorFlow has a table of 1024 steps
    weights = np.zeros((after, before))
    for offset in range(-1, 3):
        distance = np.abs(offset - fraction)
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        index = first.astype(int) + offset
        inside = (index >= 0) & (index < before)
        weights[np.flatnonzero(inside), index[inside]] += np.where(distance <= 1, near, far)[inside]
    normalized: Array = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def _average_pool(nn: Any) -> Any:
    """Return average pooling whose padding does not count, as on TensorFlow.

    Where `same` pads one side more than the other, Keras repeats the border and counts it.
    """
    import torch
    from keras.src import backend
    from keras.src.utils.argument_validation import standardize_tuple

    original = nn.average_pool

    def average_pool(
        inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
    ) -> Any:
        data_format = backend.standardize_data_format(data_format)
        tensor = backend.convert_to_tensor(inputs)
        rank = tensor.ndim - 2
        sizes = standardize_tuple(pool_size, rank, "pool_size")
        steps = sizes if strides is None else standardize_tuple(strides, rank, "strides")
        first = 1 if data_format == "channels_last" else 2
        spatial = tensor.shape[first : first + rank]
        pads = [
            nn._compute_padding_length(length, size, step)
            for length, size, step in zip(spatial, sizes, steps, strict=True)
        ]
        if padding != "same" or all(left == right for left, right in pads):
            return original(inputs, pool_size, strides, padding, data_format)
        around: list[int] = [] if data_format == "channels_first" else [0, 0]
        for pad in reversed(pads):  # torch counts axes from the last one
            around.extend(pad)

        def pooled(padded: Any) -> Any:
            return original(torch.nn.functional.pad(padded, around), sizes, steps, "valid", data_format)

        # The mean over the window with zeros, divided by the share of the window that lies inside.
        return pooled(tensor) / pooled(torch.ones_like(tensor))

    return average_pool


def _track_variables(self: Any) -> None:
    """Register a layer's variables as parameters; torch allows no dots in their names, Keras does."""
    import torch

    self._torch_params = torch.nn.ParameterDict(
        {variable.path.replace(".", "_"): variable.value for variable in self.variables}
    )
