"""The bridge from TorchScript to PyTorch: the archive's graph becomes an exported program, and that a module."""

from __future__ import annotations

from pathlib import Path

from edgekit.contracts.bridge import Bridge
from edgekit.contracts.source import Build
from edgekit.core.environment.requirements import TORCH
from edgekit.core.values.specs import Signature
from edgekit.sources._module import LoadedTorch
from edgekit.sources._script_module import module_of_script
from edgekit.sources.torchscript import load_script


class TorchScriptToTorch(Bridge):
    """The bridge for float graphs without control flow that depends on values."""

    source = "torchscript"
    target = "torch"
    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        module = module_of_script(load_script(path), signature, str(path))
        return LoadedTorch(module, signature)


BRIDGE = TorchScriptToTorch()
