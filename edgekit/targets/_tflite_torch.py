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

    pairs = zip(source.signature.inputs, source.examples(1), strict=True)
    examples = {spec.name: torch.from_numpy(array) for spec, array in pairs}
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
            return dict(zip(outputs, source.call(*(tensors[name] for name in inputs)), strict=True))

    return Named().eval()
