"""What a plug-in or a feature needs to be installed, found without importing it.

Frameworks that several plug-ins share are declared here. What one file needs is declared in that file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from edgekit.core.errors import MissingDependency

# What each of edgekit's own extras adds, for `edgekit doctor`.
EXTRAS = {
    "tensorflow": "Keras models as sources, the tflite target and its runtime, Keras to ONNX",
    "torch": "PyTorch models as sources, the torchscript and lite-interpreter targets and runtimes, PyTorch to ONNX",
    "litert": "PyTorch to tflite, and int4 in tflite",
    "executorch": "the executorch target and runtime",
    "onnx": "the onnx target and ONNX Runtime",
    "images": "folders of images as calibration samples",
    "data": "the data sets that the reference models are trained on",
    "tensorboard": "event files of a training (--tensorboard)",
    "micro": "TFLite artifacts on a microcontroller's interpreter (edgekit micro)",
    "report": "reports in HTML (report --format html)",
    "dask": "steps of a run on a cluster (run --dask)",
    "mlflow": "runs in MLflow (report --mlflow, run --mlflow)",
}


@dataclass(frozen=True)
class Requirement:
    """A Python module that has to be importable.

    Attributes:
        module: The module's name, as it is imported.
        distribution: The distribution that brings it, as pip calls it.
        extra: The extra of edgekit that asks for it; empty where none does.
        adds: What it makes possible, in a few words; empty: what the extra adds.
        install: The command that installs it; empty: pip with the extra, or with the distribution.
    """

    module: str
    distribution: str
    extra: str = ""
    adds: str = ""
    install: str = ""

    def installed(self) -> bool:
        """Return whether the module can be found. A package with a broken parent counts as absent."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except (ImportError, ValueError):
            return False

    def version(self) -> str | None:
        """Return the installed version, or None."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None

    @property
    def purpose(self) -> str:
        """What it makes possible: its own words, else those of its extra, else its name."""
        return self.adds or EXTRAS.get(self.extra, "") or self.distribution

    @property
    def install_command(self) -> str:
        """The command that installs it."""
        return install_command((self,))


def install_command(missing: Iterable[Requirement]) -> str:
    """Return the command, or the commands joined by ` && `, that installs all of them."""
    missing = tuple(missing)
    extras = sorted({item.extra for item in missing if item.extra and not item.install})
    plain = sorted({item.distribution for item in missing if not item.extra and not item.install})
    words = ([f"'edgekit[{','.join(extras)}]'"] if extras else []) + plain
    commands = [f"pip install {' '.join(words)}"] if words else []
    return " && ".join([*commands, *dict.fromkeys(item.install for item in missing if item.install)])


NUMPY = Requirement("numpy", "numpy")
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


def require(requirements: Iterable[Requirement], purpose: str) -> None:
    """Raise MissingDependency, with the command that installs them, when one of them is not installed.

    Args:
        requirements: What has to be there.
        purpose: What needs it, as the subject of the message.
    """
    missing = [item for item in requirements if not item.installed()]
    if missing:
        names = ", ".join(dict.fromkeys(item.distribution for item in missing))
        raise MissingDependency(f"{purpose} needs {names}; install it with: {install_command(missing)}")


def versions(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Return distribution -> installed version, for manifests; what is absent is left out."""
    installed = {item.distribution: item.version() for item in requirements}
    return {name: version for name, version in sorted(installed.items()) if version is not None}
