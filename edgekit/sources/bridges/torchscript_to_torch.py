"""The bridge from TorchScript to PyTorch: the archive's graph becomes an exported program, and that a module."""

from __future__ import annotations

from pathlib import Path

from edgekit.contracts.bridge import Bridge
from edgekit.contracts.source import Build
from edgekit.core.environment.requirements import TORCH
from edgekit.core.errors import StepFailed
from edgekit.core.values.specs import Signature
from edgekit.sources._module import LoadedTorch, program_module
from edgekit.sources.torchscript import load_script


class TorchScriptToTorch(Bridge):
    """The bridge for float graphs without control flow that depends on values."""

    source = "torchscript"
    target = "torch"
    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        import torch
        from torch._export.converter import TS2EPConverter

        script = load_script(path)
        # 2 for symbolic dimensions: torch.export takes sizes of 0 and 1 for constants.
        examples = tuple(
            torch.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], dtype=getattr(torch, spec.dtype))
            for spec in signature.inputs
        )
        try:
            # Private, but the only converter: torch.export.export itself refuses ScriptModules.
            program = TS2EPConverter(script, examples).convert()
        except Exception as error:  # the converter raises errors of many types
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise StepFailed(f"{path}: PyTorch cannot convert this TorchScript to a program ({reason})") from error
        return LoadedTorch(program_module(program, signature, examples), signature)


BRIDGE = TorchScriptToTorch()
