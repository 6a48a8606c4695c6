"""What TorchScript and the lite interpreter share: torch tensors in and out, and a signature from outside the graph."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.metrics import Array
from edgekit.core.requirements import TORCH
from edgekit.core.specs import Signature
from edgekit.runtimes._base import Runtime, Session

_SIGNATURE_RECORD = "extra/edgekit.json"


class TorchSession(Session):
    """A callable module."""

    def __init__(self, module: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._module = module

    def _run(self, inputs: list[Array]) -> list[Array]:
        import torch

        with torch.no_grad():
            result = self._module(*(torch.from_numpy(array) for array in inputs))
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        return [np.asarray(output.detach().numpy()) for output in outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        import torch

        tensors = [torch.from_numpy(inputs[spec.name]) for spec in self.signature.inputs]
        module = self._module

        def call() -> None:
            with torch.no_grad():
                module(*tensors)

        return call


class TorchRuntime(Runtime):
    """Opens an archive; the subclass says how."""

    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load_library(self) -> None:
        import torch

        torch.zeros(1) + 1  # the first operator starts thread pools and registers kernels

    def _open(self, path: Path, threads: int, signature: Signature | None) -> TorchSession:
        import torch

        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if "qnnpack" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "qnnpack"  # what the weights were packed for
        try:
            module = self._load(str(path))
            signature = signature or _read_signature(path)
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{path}: the {self.title} does not take this file ({reason})") from error
        if signature is None:
            raise InputError(f"{path}: this file does not tell its inputs and outputs, and none were given")
        return TorchSession(module, signature)

    @abstractmethod
    def _load(self, path: str) -> Any:
        """The module in the file."""


def _read_signature(path: Path) -> Signature | None:
    import torch

    reader = torch._C.PyTorchFileReader(str(path))
    if not reader.has_record(_SIGNATURE_RECORD):
        return None
    return Signature.from_dict(json.loads(reader.get_record(_SIGNATURE_RECORD)))
