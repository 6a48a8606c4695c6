"""The target of the PyTorch Mobile lite interpreter: TorchScript as bytecode, in a .ptl file."""

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
from edgekit.targets._torch import torchscript_file


class LiteInterpreterTarget(Target):
    """Bytecode files, written from a TorchScript archive and optimised for mobile if torch has XNNPACK."""

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
            # Writing and loading the archive gives the bytecode the canonical class names, and with them the same
            # bytes in every process.
            path = Path(folder) / "model.pt"
            traced = torchscript_file.to_torchscript(source, job)
            signature = torchscript_file.traced_signature(traced, source)
            torchscript_file.save(traced, signature, path)
            module = torchscript_file.load(path)
        module, note = _optimize(module)
        record = {torchscript_file.SIGNATURE_RECORD: json.dumps(asdict(signature), sort_keys=True)}
        module._save_for_lite_interpreter(str(job.folder / self.file_name), _extra_files=record)
        options = torchscript_file.manifest_options(source, job)
        return ConversionResult(self.file_name, signature, options, (note,) if note else ())

    def describe(self, path: Path) -> ModelDescription:
        return torchscript_file.describe(path, self.name)


def _optimize(module: Any) -> tuple[Any, str]:
    """Return the module with weights prepacked for XNNPACK, and a note for the user if that is not possible."""
    import torch

    # The CPU wheels of torch 2.13 have no XNNPACK, and optimize_for_mobile aborts the process without it.
    xnnpack = getattr(torch.backends, "xnnpack", None)
    if xnnpack is None or not xnnpack.enabled:
        return module, "frozen, but not prepacked for XNNPACK: this build of torch does not include XNNPACK"
    from torch.utils.mobile_optimizer import optimize_for_mobile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as of TorchScript as a whole
        return optimize_for_mobile(module), ""


TARGET = LiteInterpreterTarget()
