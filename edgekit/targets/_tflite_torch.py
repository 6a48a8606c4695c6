"""PyTorch to TFLite by litert-torch (torch.export, then MLIR); the model's own layout stays."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from edgekit.core.source import LoadedSource

CONVERTER = "litert-torch"


def convert_float(source: LoadedSource, folder: Path) -> bytes:
    """The float32 flatbuffer; inputs and outputs are named by the source's signature."""
    import litert_torch
    import torch

    examples = {
        spec.name: torch.zeros([1, *map(int, spec.shape[1:])], dtype=getattr(torch, spec.dtype))
        for spec in source.signature.inputs
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it reports each of its passes there
        model = litert_torch.convert(_named(source), sample_kwargs=examples)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary, "float.tflite")
            model.export(str(path))
            return path.read_bytes()


def _named(source: LoadedSource) -> Any:
    """A module with keyword inputs and a dict of outputs: litert-torch takes the names of the file from there."""
    import torch

    inputs = [spec.name for spec in source.signature.inputs]
    outputs = [spec.name for spec in source.signature.outputs]

    class Named(torch.nn.Module):  # type: ignore[misc]
        """The source's module."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.model

        def forward(self, **tensors: Any) -> dict[str, Any]:
            result = self.module(*(tensors[name] for name in inputs))
            results = result if isinstance(result, (list, tuple)) else [result]
            return dict(zip(outputs, results, strict=True))

    return Named().eval()
