"""TorchScript in libtorch."""

from __future__ import annotations

from typing import Any

from edgekit.runtimes._torch import TorchRuntime


class TorchScriptRuntime(TorchRuntime):
    """Runs .pt files."""

    name = "torchscript"
    title = "TorchScript runtime"

    def _load(self, path: str) -> Any:
        import torch

        return torch.jit.load(path, map_location="cpu")


RUNTIME = TorchScriptRuntime()
