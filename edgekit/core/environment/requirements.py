"""What a plug-in needs to be installed, found without importing it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from edgekit.core.errors import MissingDependency


@dataclass(frozen=True)
class Requirement:
    """A module, the distribution that brings it, and the extra of edgekit that asks for it."""

    module: str
    distribution: str
    extra: str

    def installed(self) -> bool:
        """Whether the module can be found. A package with a broken parent counts as absent."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except (ImportError, ValueError):
            return False

    def version(self) -> str | None:
        """The installed version, or None."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None


NUMPY = Requirement("numpy", "numpy", "")
TENSORFLOW = Requirement("tensorflow", "tensorflow", "tensorflow")
KERAS = Requirement("keras", "keras", "tensorflow")
LITERT = Requirement("ai_edge_litert", "ai-edge-litert", "tensorflow")
TF2ONNX = Requirement("tf2onnx", "tf2onnx", "tensorflow")
TORCH = Requirement("torch", "torch", "torch")
ONNXSCRIPT = Requirement("onnxscript", "onnxscript", "torch")
ONNX = Requirement("onnx", "onnx", "onnx")
ONNXRUNTIME = Requirement("onnxruntime", "onnxruntime", "onnx")
LITERT_TORCH = Requirement("litert_torch", "litert-torch", "litert")
QUANTIZER = Requirement("ai_edge_quantizer", "ai-edge-quantizer", "litert")
EXECUTORCH = Requirement("executorch", "executorch", "executorch")
TORCHAO = Requirement("torchao", "torchao", "executorch")
SAFETENSORS = Requirement("safetensors", "safetensors", "torch")
ONNXSLIM = Requirement("onnxslim", "onnxslim", "onnx")
PILLOW = Requirement("PIL", "pillow", "images")
MLXTEND = Requirement("mlxtend", "mlxtend", "data")
TENSORBOARD = Requirement("tensorboard", "tensorboard", "tensorboard")
SEGLEARN = Requirement("seglearn", "seglearn", "data")
AEON = Requirement("aeon", "aeon", "data")
TFLITE_MICRO = Requirement("tflite_micro", "tflite-micro", "micro")
ELFTOOLS = Requirement("elftools", "pyelftools", "micro")
CAPSTONE = Requirement("capstone", "capstone", "micro")
VELA = Requirement("ethosu.vela", "ethos-u-vela", "micro")
MATPLOTLIB = Requirement("matplotlib", "matplotlib", "report")
JINJA2 = Requirement("jinja2", "jinja2", "report")
DASK = Requirement("distributed", "distributed", "dask")
FSSPEC = Requirement("fsspec", "fsspec", "dask")
MLFLOW = Requirement("mlflow", "mlflow-skinny", "mlflow")

ALL = (
    TENSORFLOW,
    KERAS,
    LITERT,
    TF2ONNX,
    TORCH,
    ONNXSCRIPT,
    LITERT_TORCH,
    QUANTIZER,
    EXECUTORCH,
    TORCHAO,
    ONNX,
    ONNXRUNTIME,
    ONNXSLIM,
    SAFETENSORS,
    PILLOW,
    MLXTEND,
    TENSORBOARD,
    SEGLEARN,
    AEON,
    TFLITE_MICRO,
    ELFTOOLS,
    CAPSTONE,
    VELA,
    MATPLOTLIB,
    JINJA2,
    DASK,
    FSSPEC,
    MLFLOW,
)


def require(requirements: Iterable[Requirement], what_for: str) -> None:
    """Raises MissingDependency, with the pip command, when one of them is not installed."""
    missing = [item for item in requirements if not item.installed()]
    if missing:
        names = ", ".join(item.distribution for item in missing)
        extras = ",".join(sorted({item.extra for item in missing}))
        raise MissingDependency(f"{what_for} needs {names}; install it with: pip install 'edgekit[{extras}]'")


def versions(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Distribution -> installed version, for manifests; what is absent is left out."""
    found = {item.distribution: item.version() for item in requirements}
    return {name: version for name, version in sorted(found.items()) if version is not None}
