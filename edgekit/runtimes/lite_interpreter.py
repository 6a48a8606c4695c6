"""The PyTorch Mobile lite interpreter, the same bytecode interpreter as on phones."""

from __future__ import annotations

from typing import Any

from edgekit.runtimes._torch import TorchRuntime


class LiteInterpreterRuntime(TorchRuntime):
    """Runs .ptl files."""

    name = "lite-interpreter"
    title = "PyTorch lite interpreter"
    targets = ("lite-interpreter",)

    def _load(self, path: str) -> Any:
        from torch.jit.mobile import _load_for_lite_interpreter

        return _load_for_lite_interpreter(path, map_location="cpu")


RUNTIME = LiteInterpreterRuntime()
