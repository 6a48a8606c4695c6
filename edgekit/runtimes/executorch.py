"""The ExecuTorch runtime on the CPU, with its XNNPACK backend."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, RuntimeSession
from edgekit.core.environment.requirements import EXECUTORCH
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import SCALAR_TYPES, Signature, TensorSpec


def _library() -> Any:
    """Import executorch.runtime without the exporter, which takes four fifths of the time of the import.

    The bindings need one class of warnings from executorch.exir, whose __init__ imports the whole exporter. During
    the import, an empty module replaces that package; it is removed afterwards, so that a conversion can import it.
    """
    exporter = "executorch.exir"
    if "executorch.runtime" not in sys.modules and exporter not in sys.modules:
        spec = importlib.util.find_spec(exporter)
        if spec is not None:
            sys.modules[exporter] = importlib.util.module_from_spec(spec)
            try:
                import executorch.runtime
            finally:
                del sys.modules[exporter]
    import executorch.runtime

    return executorch.runtime


class ExecuTorchSession(RuntimeSession):
    """A session with the loaded method `forward` of a program."""

    def __init__(self, method: Any, program: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._method = method
        self._program = program  # owns the memory that the method runs on

    def _run(self, inputs: list[Array]) -> list[Array]:
        import torch

        outputs = self._method.execute([torch.from_numpy(array) for array in inputs])
        return [np.array(output.detach().numpy()) for output in outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        import torch

        tensors = [torch.from_numpy(inputs[spec.name]) for spec in self.signature.inputs]
        execute = self._method.execute
        return lambda: execute(tensors)


class ExecuTorchRuntime(Runtime):
    """Runs .pte files."""

    name = "executorch"
    title = "ExecuTorch"
    targets = ("executorch",)
    requires = (EXECUTORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load_library(self) -> None:
        import torch

        torch.zeros(1) + 1  # the first operator starts thread pools and registers kernels
        _library().Runtime.get()

    def _open(self, path: Path, threads: int, signature: Signature | None) -> ExecuTorchSession:
        executor = _library().Runtime.get()
        from executorch.extension.pybindings import portable_lib

        # By default the pool has a thread for each core of the machine, also for those that the process may not use;
        # there is no public way to change its size.
        portable_lib._unsafe_reset_threadpool(threads)
        try:
            program = executor.load_program(path)
            method = program.load_method("forward")
            signature = signature or _numbered_signature(program.metadata("forward"))
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{path}: ExecuTorch cannot load this file ({reason})") from error
        if method is None:
            raise InputError(f"{path}: ExecuTorch cannot load this file (it has no method forward)")
        return ExecuTorchSession(method, program, signature)


def _numbered_signature(metadata: Any) -> Signature:
    """The signature with the file's shapes and types; tensors are numbered, since the file has no names."""
    inputs = [_spec(f"input_{i}", metadata.input_tensor_meta(i)) for i in range(metadata.num_inputs())]
    outputs = [_spec(f"output_{i}", metadata.output_tensor_meta(i)) for i in range(metadata.num_outputs())]
    return Signature(tuple(inputs), tuple(outputs))


def _spec(name: str, meta: Any) -> TensorSpec:
    return TensorSpec(name, tuple(meta.sizes()), SCALAR_TYPES.get(meta.dtype(), str(meta.dtype())))


RUNTIME = ExecuTorchRuntime()
