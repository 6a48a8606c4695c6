"""Keras to PyTorch: Keras 3 loads the same .keras file on its torch backend, and the model is an nn.Module.

The backend is chosen when Keras is imported, hence a process of its own. The module keeps Keras's layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.errors import InputError
from edgekit.core.requirements import KERAS, TORCH
from edgekit.core.specs import Signature
from edgekit.sources.bridges._base import Bridge
from edgekit.sources.bridges._functional import functional
from edgekit.sources.torch import LoadedTorch


class KerasToTorch(Bridge):
    """Every layer that Keras implements on its torch backend."""

    source = "keras"
    target = "torch"
    requires = (KERAS, TORCH)
    variables = {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "-1"}

    def load(self, path: Path, signature: Signature, code: Path | None) -> LoadedTorch:
        import keras

        try:
            model = keras.models.load_model(path, safe_mode=True, compile=False)
        except Exception as error:  # zip, h5 and JSON errors of many types: all mean that the file is no model
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise InputError(f"{path}: Keras cannot load this model on its torch backend ({reason})") from error
        return LoadedTorch(_rewritten(_positional(model).eval(), signature), signature)


def _rewritten(module: Any, signature: Signature) -> Any:
    """The module in PyTorch's own functions, as quantizers and delegates look for them."""
    import torch

    examples = tuple(
        torch.zeros([2, *map(int, spec.shape[1:])], dtype=getattr(torch, spec.dtype)) for spec in signature.inputs
    )
    return functional(module, examples)


def _positional(model: Any) -> Any:
    """A module that takes tensors one by one, as torch traces them, and returns one tensor or a tuple."""
    import torch

    class KerasModule(torch.nn.Module):  # type: ignore[misc]
        """The Keras model in inference mode."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            result = self.model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
            results = list(result.values()) if isinstance(result, dict) else result
            return tuple(results) if isinstance(results, (list, tuple)) else results

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return KerasModule()


BRIDGE = KerasToTorch()
