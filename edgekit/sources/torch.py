"""PyTorch modules: a state dict, loaded with weights_only, in the network that `build()` of the model's code makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.code import load_function
from edgekit.core.errors import InputError
from edgekit.core.metrics import Array
from edgekit.core.requirements import TORCH
from edgekit.core.specs import Signature
from edgekit.sources._base import Loaded, SourceKind


class LoadedTorch(Loaded):
    """An nn.Module in eval mode."""

    kind = "torch"

    def _run(self, inputs: list[Array]) -> list[Array]:
        import torch

        with torch.no_grad():
            result: Any = self.model(*(torch.from_numpy(array) for array in inputs))
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        return [output.numpy() for output in outputs]

    def parameters(self) -> dict[str, Array]:
        return {name: tensor.detach().numpy() for name, tensor in self.model.state_dict().items()}


class Torch(SourceKind):
    """Channels first, float32."""

    name = "torch"
    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    layout = "first"

    def load(self, path: Path, signature: Signature, code: Path | None) -> LoadedTorch:
        import torch

        if code is None:
            raise InputError(f"{path}: bare PyTorch weights need the code that builds the network around them")
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and runtime errors of many types: all mean the same to the user
            raise InputError(f"{path}: this is not a PyTorch checkpoint of plain weights, or it is damaged") from error
        module = load_function(code, "build")()
        try:
            module.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: these weights do not fit the network that {code} builds; train it again"
            ) from error
        return LoadedTorch(module.eval(), signature)


SOURCE = Torch()
