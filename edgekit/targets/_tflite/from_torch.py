"""Conversion from PyTorch to TFLite by litert-torch (torch.export, then MLIR); layouts stay as in the model."""

from __future__ import annotations

import contextlib
import io
import keyword
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import TensorSpec
from edgekit.targets._tflite.graph import rename_signature

CONVERTER = "litert-torch"


def convert_float(source: LoadedSource, folder: Path) -> bytes:
    """Convert a PyTorch module to a float32 flatbuffer.

    Args:
        source: The loaded module.
        folder: A folder for temporary files.

    Returns:
        The flatbuffer, with the names of the source's signature.
    """
    import litert_torch
    import torch

    inputs, outputs = _aliases(source.signature.inputs), _aliases(source.signature.outputs)
    examples = {alias: torch.from_numpy(array) for alias, array in zip(inputs, source.examples(1), strict=True)}
    with contextlib.redirect_stdout(io.StringIO()):  # litert-torch prints each of its passes
        model = litert_torch.convert(_named(source, list(inputs), list(outputs)), sample_kwargs=examples)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary, "float.tflite")
            model.export(str(path))
            content = path.read_bytes()
    aliased = any(alias != name for alias, name in (*inputs.items(), *outputs.items()))
    return rename_signature(content, inputs, outputs) if aliased else content


def _aliases(specs: Sequence[TensorSpec]) -> dict[str, str]:
    """Return names by their aliases; a name that is a Python identifier is its own alias."""
    # litert-torch 0.10 has torch.export write the names into Python code, where `input.1` and `class` are errors.
    return {
        spec.name if spec.name.isidentifier() and not keyword.iskeyword(spec.name) else f"tensor_{index}": spec.name
        for index, spec in enumerate(specs)
    }


def _named(source: LoadedSource, inputs: list[str], outputs: list[str]) -> Any:
    """Return a module with keyword inputs and a dict of outputs, from which litert-torch takes the file's names."""
    import torch

    class CalledByName(torch.nn.Module):  # type: ignore[misc]
        """The source's module, called by names."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.model

        def forward(self, **tensors: Any) -> dict[str, Any]:
            return dict(zip(outputs, source.call(*(tensors[name] for name in inputs)), strict=True))

    # litert-torch puts the names of modules and classes into the names of tensors: users find a neutral one there.
    CalledByName.__module__, CalledByName.__qualname__ = "model", "Model"
    return CalledByName().eval()
