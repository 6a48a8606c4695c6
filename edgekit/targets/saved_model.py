"""The SavedModel target: a version folder with a serving signature, as TensorFlow Serving loads it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, Target
from edgekit.core.environment.requirements import KERAS, TENSORFLOW
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, OpCount, TensorSpec
from edgekit.core.values.tensor_aliases import aliases
from edgekit.tensorflow_files.saved_model import (
    MAIN_FILE,
    SERVING_SIGNATURE,
    SavedModelFile,
    read_signature,
    read_variables,
    saved_model_folder,
)

# TensorFlow Serving loads the subfolders of a model whose names are numbers. An artifact has one version.
_VERSION = "1"
# Operators that hold or pass values on, and compute nothing.
_PASSIVE = frozenset({"Placeholder", "NoOp", "Identity", "Const", "ReadVariableOp", "VarHandleOp"})


class SavedModelTarget(Target):
    """SavedModels in float32, with the symbolic batch of the source."""

    name = "saved-model"
    title = "TensorFlow SavedModel"
    suffixes = (".pb",)
    runtime = "tensorflow"
    routes = {"keras": ("float32",), "saved-model": ("float32",)}
    requires = {"keras": (TENSORFLOW, KERAS), "saved-model": (TENSORFLOW,)}
    reads_with = (TENSORFLOW,)
    symbolic = True
    only_named = True
    transposes = ("Transpose",)

    @property
    def file_name(self) -> str:
        return f"{_VERSION}/{MAIN_FILE}"

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        folder = job.folder / _VERSION
        _write(source, folder)
        # It holds a random identifier, and TensorFlow does without.
        (folder / "fingerprint.pb").unlink(missing_ok=True)
        files = sorted(path.relative_to(job.folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files.remove(self.file_name)
        renamed = {
            name: alias
            for side in (source.signature.inputs, source.signature.outputs)
            for alias, name in aliases(side).items()
            if alias != name
        }
        notes = tuple(f"the serving signature names the tensor {name!r} {alias}" for name, alias in renamed.items())
        return ConversionResult(
            self.file_name,
            source.signature,
            {"signature": SERVING_SIGNATURE},
            notes,
            not_reproducible_because="TensorFlow numbers the functions in a SavedModel by a counter of the process",
            extra_files=tuple(files),
        )

    def describe(self, path: Path) -> ModelDescription:
        folder = saved_model_folder(path)
        file = SavedModelFile(folder)
        variables = read_variables(folder)
        signature = read_signature(folder)
        operators = Counter(name for name in file.operators if name not in _PASSIVE)
        return ModelDescription(
            format="saved-model",
            signature=signature,
            ops=tuple(OpCount(name, count) for name, count in operators.most_common()),
            tensors=len(signature.inputs) + len(signature.outputs) + len(variables),
            parameters=sum(variable.elements for variable in variables),
            weight_bytes=sum(variable.size_bytes for variable in variables),
            macs=None,
            activation_bytes=None,
            quantized_tensors=0,
            metadata={"signature": SERVING_SIGNATURE},
        )


def _write(source: LoadedSource, folder: Path) -> None:
    """Write a SavedModel with one signature, which has aliases of the source's names."""
    import tensorflow as tf

    inputs, outputs = aliases(source.signature.inputs), aliases(source.signature.outputs)

    def serve(**tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, source.call(*(tensors[alias] for alias in inputs)), strict=True))

    specs = {
        alias: tf.TensorSpec(_shape(spec), spec.dtype, name=alias)
        for alias, spec in zip(inputs, source.signature.inputs, strict=True)
    }
    function = tf.function(serve, autograph=False).get_concrete_function(**specs)
    module = tf.Module()
    # Not keras.export.ExportArchive, which writes each weight twice (Keras 3.15): as its own variable and as
    # TensorFlow's.
    module.variables_of_model = list(function.graph.variables)
    if isinstance(source.model, tf.Module):
        module.model = source.model  # also holds tables, whose contents are no variables
    tf.saved_model.save(module, str(folder), signatures={SERVING_SIGNATURE: function})


def _shape(spec: TensorSpec) -> list[int | None]:
    return [None if isinstance(dim, str) else dim for dim in spec.shape]


TARGET = SavedModelTarget()
