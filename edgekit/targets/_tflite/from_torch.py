"""Conversion from PyTorch to TFLite by litert-torch (torch.export, then MLIR); layouts stay as in the model."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.tensor_aliases import aliases
from edgekit.targets._tflite.lowerable_forms import lowerable_forms
from edgekit.tflite_files.graph import rename_signature

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

    _check_integers(source)
    # litert-torch 0.10 has torch.export write the names into Python code, where `input.1` and `class` are errors.
    inputs, outputs = aliases(source.signature.inputs), aliases(source.signature.outputs)
    examples = {alias: torch.from_numpy(array) for alias, array in zip(inputs, source.examples(1), strict=True)}
    with contextlib.redirect_stdout(io.StringIO()):  # litert-torch prints each of its passes
        model = litert_torch.convert(_named(source, list(inputs), list(outputs)), sample_kwargs=examples)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary, "float.tflite")
            model.export(str(path))
            content = path.read_bytes()
    return rename_signature(content, inputs, outputs)


def _named(source: LoadedSource, inputs: list[str], outputs: list[str]) -> Any:
    """Return a module with keyword inputs and a dict of outputs, from which litert-torch takes the file's names."""
    import torch

    class CalledByName(torch.nn.Module):  # type: ignore[misc]
        """The source's module, called by names."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.model

        def forward(self, **tensors: Any) -> dict[str, Any]:
            with lowerable_forms():
                return dict(zip(outputs, source.call(*(tensors[name] for name in inputs)), strict=True))

    # litert-torch puts the names of modules and classes into the names of tensors: users find a neutral one there.
    CalledByName.__module__, CalledByName.__qualname__ = "model", "Model"
    return CalledByName().eval()


# Samples in which integers are looked for that the file could not compute with.
_LOOKED_AT = 64


def _check_integers(source: LoadedSource) -> None:
    """Raise InputError for samples with integers beyond int32: litert-torch 0.10 lowers int64 arithmetic to int32."""
    examples = source.examples(_LOOKED_AT if source.signature.batch else 1)
    for spec, array in zip(source.signature.inputs, examples, strict=True):
        if spec.dtype in ("int64", "uint64", "uint32") and array.size and int(np.abs(array).max()) > _INT32:
            raise InputError(
                f"{spec.name} has values such as {int(np.abs(array).max())}, but TFLite files from PyTorch compute with"
                " int32; hash them before the network, or export to onnx, executorch or torchscript"
            )


_INT32 = 2**31 - 1
