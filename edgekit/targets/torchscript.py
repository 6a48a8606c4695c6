"""TorchScript: traced and frozen, run by libtorch."""

from __future__ import annotations

from pathlib import Path

from edgekit.contracts.target import ConversionRequest, ConversionResult, Target
from edgekit.core.environment.requirements import TORCH
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription
from edgekit.targets._torch import torchscript_file as archive


class TorchScript(Target):
    """By torch.jit.trace and freeze; int8 by FX graph mode quantization with the qnnpack engine."""

    name = "torchscript"
    title = "TorchScript"
    suffixes = (".pt",)
    runtime = "torchscript"
    routes = {"torch": ("float32", "int8"), "torchscript": ("float32",)}
    requires = {"torch": (TORCH,), "torchscript": (TORCH,)}
    reads_with = (TORCH,)
    symbolic = True
    transposes = ("aten::permute", "aten::transpose", "aten::t")

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        module = archive.scripted(source, job)
        signature = archive.kept(module, source)
        archive.save(module, signature, job.folder / self.file_name)
        return ConversionResult(self.file_name, signature, archive.options(source, job))

    def describe(self, path: Path) -> ModelDescription:
        return archive.describe(path, self.name)


TARGET = TorchScript()
