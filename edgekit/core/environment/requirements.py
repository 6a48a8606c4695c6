"""Packages that plug-ins and features require, and whether they are installed, without importing them.

Requirements of several plug-ins are declared here; those of a single file are declared in that file.
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
    "transformers": "folders that `save_pretrained` of transformers writes as sources",
    "litert": "PyTorch to tflite, and int4 in tflite",
    "executorch": "the executorch target and runtime",
    "onnx": "the onnx target and ONNX Runtime",
    "images": "folders of images as calibration samples",
    "data": "the data sets that the reference models are trained on",
    "tensorboard": "event files of a training (--tensorboard)",
    "micro": "TFLite artifacts on a microcontroller's interpreter (edgekit micro)",
    "report": "reports in HTML (report --format html)",
    "dask": "steps of a run on a cluster (run --dask)",
    "browser": "models in a browser (bench --device chromium, the runtimes onnxruntime-web and litert-js)",
    "mlflow": "runs in MLflow (report --mlflow, run --mlflow)",
    "serve": "artifacts over HTTP (edgekit serve)",
}


@dataclass(frozen=True)
class Requirement:
    """A Python module that has to be importable.

    Attributes:
        module: The module's name, as it is imported.
        distribution: The distribution that contains it, by its name on PyPI.
        extra: The extra of edgekit that requires it; empty if none does.
        adds: The features that need it, in a few words; empty: those of the extra.
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
        """The features that need it: `adds`, else the description of its extra, else its distribution."""
        return self.adds or EXTRAS.get(self.extra, "") or self.distribution

    @property
    def install_command(self) -> str:
        """The command that installs it."""
        return install_command((self,))


def install_command(missing: Iterable[Requirement]) -> str:
    """Return the command that installs some requirements.

    Args:
        missing: The requirements.

    Returns:
        The command; several are joined by ` && `.
    """
    missing = tuple(missing)
    by_pip = [requirement for requirement in missing if not requirement.install]
    extras = sorted({requirement.extra for requirement in by_pip if requirement.extra})
    distributions = sorted({requirement.distribution for requirement in by_pip if not requirement.extra})
    packages = ([f"'edgekit[{','.join(extras)}]'"] if extras else []) + distributions
    commands = [f"pip install {' '.join(packages)}"] if packages else []
    return " && ".join(
        [*commands, *dict.fromkeys(requirement.install for requirement in missing if requirement.install)]
    )


# The import name, the distribution and the extra.
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
TRANSFORMERS = Requirement("transformers", "transformers", "transformers")
ONNXSLIM = Requirement("onnxslim", "onnxslim", "onnx")
YAML = Requirement("yaml", "pyyaml", "mlflow")


def require(requirements: Iterable[Requirement], purpose: str) -> None:
    """Raise an error if a requirement is not installed.

    Args:
        requirements: The requirements.
        purpose: What needs them, as the subject of the error message.

    Raises:
        MissingDependency: A requirement is not installed; the message contains the command that installs it.
    """
    missing = [requirement for requirement in requirements if not requirement.installed()]
    if missing:
        names = ", ".join(dict.fromkeys(requirement.distribution for requirement in missing))
        raise MissingDependency(f"{purpose} needs {names}; install it with: {install_command(missing)}")


def versions(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Return the installed versions of some requirements, for manifests.

    Args:
        requirements: The requirements.

    Returns:
        Distribution -> version, sorted, without those that are not installed.
    """
    distributions = {requirement.distribution: requirement.version() for requirement in requirements}
    return {name: version for name, version in sorted(distributions.items()) if version is not None}
