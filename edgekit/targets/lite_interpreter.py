"""The PyTorch Mobile lite interpreter: TorchScript as bytecode, in a .ptl file."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, Target
from edgekit.core.environment.requirements import TORCH
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription
from edgekit.targets._torch import torchscript_file as archive


class LiteInterpreter(Target):
    """By way of a TorchScript archive, optimised for mobile where the build of torch has XNNPACK."""

    name = "lite-interpreter"
    title = "PyTorch Mobile lite interpreter"
    suffixes = (".ptl",)
    runtime = "lite-interpreter"
    routes = {"torch": ("float32", "int8"), "torchscript": ("float32",)}
    requires = {"torch": (TORCH,), "torchscript": (TORCH,)}
    reads_with = (TORCH,)
    symbolic = True
    transposes = ("aten::permute", "aten::transpose", "aten::t")

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            # Written and read back: the names in the bytecode are then those of the canonical archive.
            path = Path(folder) / "model.pt"
            made = archive.scripted(source, job)
            signature = archive.kept(made, source)
            archive.save(made, signature, path)
            module = archive.load(path)
        module, note = _optimised(module)
        record = {archive.SIGNATURE_RECORD: json.dumps(asdict(signature), sort_keys=True)}
        module._save_for_lite_interpreter(str(job.folder / self.file_name), _extra_files=record)
        return ConversionResult(self.file_name, signature, archive.options(source, job), (note,) if note else ())

    def describe(self, path: Path) -> ModelDescription:
        return archive.describe(path, self.name)


def _optimised(module: Any) -> tuple[Any, str]:
    """XNNPACK prepacking where there is XNNPACK: without it, optimize_for_mobile of torch 2.13 aborts."""
    import torch

    xnnpack = getattr(torch.backends, "xnnpack", None)
    if xnnpack is None or not xnnpack.enabled:
        return module, "frozen, but not prepacked for XNNPACK: this build of torch has none"
    from torch.utils.mobile_optimizer import optimize_for_mobile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optimize_for_mobile(module), ""


TARGET = LiteInterpreter()
