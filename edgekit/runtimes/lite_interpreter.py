"""The PyTorch Mobile lite interpreter, the same bytecode interpreter as on phones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.runtimes._torch import TorchRuntime
from edgekit.torch_files import script_archive


class LiteInterpreterRuntime(TorchRuntime):
    """Runs .ptl files."""

    name = "lite-interpreter"
    title = "PyTorch lite interpreter"
    targets = ("lite-interpreter",)

    def _load(self, path: Path) -> Any:
        return script_archive.load_mobile(path)


RUNTIME = LiteInterpreterRuntime()
