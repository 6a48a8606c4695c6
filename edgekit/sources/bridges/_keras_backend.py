"""Workarounds for faults of Keras's torch backend, in force while a model is loaded and traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def torch_backend_mended() -> Iterator[None]:
    """Replace functions of the torch backend (Keras 3.15) that fail or compute other values than those of TensorFlow.

    Tests notice when a fault is gone; docs/upstream.md lists them.
    """
    from keras.src.backend.torch import layer, nn

    patches = (
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
