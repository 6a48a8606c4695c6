"""The bridge from Keras to PyTorch: on its torch backend, Keras 3 loads a .keras file as a `torch.nn.Module`.

Keras selects its backend at import, so the bridge runs in a process of its own. The module keeps Keras's layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.contracts.bridge import Bridge
from edgekit.contracts.source import Build
from edgekit.core.environment.requirements import KERAS, TORCH
from edgekit.core.values.specs import Signature
from edgekit.sources._keras_file import load_source
from edgekit.sources._keras_structure import call
from edgekit.sources._module import LoadedTorch
from edgekit.sources.bridges._functional import functional_or_single
from edgekit.sources.bridges._keras_backend import torch_backend_mended


class KerasToTorch(Bridge):
    """The bridge for all layers that Keras implements on its torch backend."""

    source = "keras"
    target = "torch"
    requires = (KERAS, TORCH)
    variables = {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "-1"}

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        with torch_backend_mended():
            model = load_source(path, build, signature.inputs, " on its torch backend")
            module = _positional(model, signature).eval()
            # Keras composes layers from primitive operators; quantizers and delegates match PyTorch's own functions.
            return LoadedTorch(*functional_or_single(module, signature))


def _positional(model: Any, signature: Signature) -> Any:
    """Return a module that takes one positional tensor per input and returns one tensor or a tuple."""
    import torch

    names = [spec.name for spec in signature.inputs]

    class KerasModule(torch.nn.Module):  # type: ignore[misc]
        """The Keras model in inference mode."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            outputs = call(self.model, inputs, names)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return KerasModule()


BRIDGE = KerasToTorch()
