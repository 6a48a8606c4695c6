"""The TorchScript target: traced and frozen modules for libtorch."""

from __future__ import annotations

from pathlib import Path

from edgekit.contracts.target import ConversionRequest, ConversionResult, Target
from edgekit.core.environment.requirements import TORCH
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription
from edgekit.targets._torch import torchscript_file


class TorchScriptTarget(Target):
    """TorchScript archives, written by torch.jit.trace and freeze.

    int8 uses quantization in FX graph mode with the qnnpack engine.
    """

    name = "torchscript"
    title = "TorchScript"
    suffixes = (".pt",)
    runtime = "torchscript"
    routes = {"torch": ("float32", "int8"), "torchscript": ("float32",)}
    # A TorchScript source is frozen only: quantization in FX graph mode needs the Python module.
    requires = {"torch": (TORCH,), "torchscript": (TORCH,)}
    reads_with = (TORCH,)
    symbolic = True
    transposes = ("aten::permute", "aten::transpose", "aten::t")  # what permute(), transpose() and .T trace to

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        module = torchscript_file.to_torchscript(source, job)
        signature = torchscript_file.traced_signature(module, source)
        torchscript_file.save(module, signature, job.folder / self.file_name)
        return ConversionResult(self.file_name, signature, torchscript_file.manifest_options(source, job))

    def describe(self, path: Path) -> ModelDescription:
        return torchscript_file.describe(path, self.name)


TARGET = TorchScriptTarget()
