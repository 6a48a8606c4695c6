"""Conversion from PyTorch to TFLite by litert-torch (torch.export, then MLIR); layouts stay as in the model."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.core.records.source import LoadedSource
from edgekit.core.values.tensor_aliases import aliases
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
            with lowered_forms():
                return dict(zip(outputs, source.call(*(tensors[name] for name in inputs)), strict=True))

    # litert-torch puts the names of modules and classes into the names of tensors: users find a neutral one there.
    CalledByName.__module__, CalledByName.__qualname__ = "model", "Model"
    return CalledByName().eval()


@contextlib.contextmanager
def lowered_forms() -> Iterator[None]:
    """Trace operators in forms that litert-torch 0.10 can lower, for as long as the block runs.

    - `padding="same"` of an even kernel, with one more element at the end: a pad and a convolution.
    - A sum of 8-bit integers, for which it inserts a cast to uint64 that TFLite does not have: a sum of int32.
    """
    import torch
    import torch.nn.functional as F
    from torch.overrides import TorchFunctionMode

    convolutions = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
    sums = (torch.sum, torch.Tensor.sum)
    narrow = (torch.uint8, torch.int8, torch.int16)

    def convolve(
        func: Any,
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        if padding == "same":
            rank = convolutions[func]
            steps = [dilation] * rank if isinstance(dilation, int) else list(dilation)
            totals = [step * (size - 1) for step, size in zip(steps, weight.shape[2:], strict=True)]
            x = F.pad(x, [side for total in reversed(totals) for side in (total // 2, total - total // 2)])
            padding = 0
        return func(x, weight, bias, stride, padding, dilation, groups)

    class LoweredForms(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            keywords = dict(kwargs or {})
            if func in convolutions:
                keywords = {"x" if name == "input" else name: value for name, value in keywords.items()}
                return convolve(func, *args, **keywords)
            if func in sums and args and args[0].dtype in narrow and keywords.get("dtype") is None:
                total = func(args[0].to(torch.int32), *args[1:], **keywords)
                return total.to(torch.int64)
            return func(*args, **keywords)

    with LoweredForms():
        yield
