"""TensorFlow itself, which TensorFlow Serving runs SavedModels with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, RuntimeSession
from edgekit.core.environment.requirements import TENSORFLOW
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature
from edgekit.core.values.tensor_aliases import aliases
from edgekit.tensorflow_files.saved_model import SERVING_SIGNATURE, SavedModelFile, read_signature, saved_model_folder


class SavedModelSession(RuntimeSession):
    """A session with the serving signature of a SavedModel, whose tensors have plain names."""

    def __init__(self, loaded: Any, function: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._loaded = loaded  # the function holds its variables weakly
        self._function = function
        self._inputs, self._outputs = list(aliases(signature.inputs)), list(aliases(signature.outputs))

    def _run(self, inputs: list[Array]) -> list[Array]:
        import tensorflow as tf

        results = self._function(**{name: tf.constant(array) for name, array in zip(self._inputs, inputs, strict=True)})
        return [np.array(results[name].numpy()) for name in self._outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        import tensorflow as tf

        specs = self.signature.inputs
        tensors = {name: tf.constant(inputs[spec.name]) for name, spec in zip(self._inputs, specs, strict=True)}
        function = self._function
        return lambda: function(**tensors)


class TensorFlowRuntime(Runtime):
    """Runs the serving signature of SavedModels on the CPU."""

    name = "tensorflow"
    title = "TensorFlow"
    targets = ("saved-model",)
    requires = (TENSORFLOW,)
    # As for sources: no GPU, and no oneDNN, whose rounding depends on the CPU's instruction set.
    variables = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}

    def load_library(self) -> None:
        import tensorflow  # noqa: F401

    def check(self, path: Path) -> None:
        SavedModelFile(saved_model_folder(path))

    def _open(self, path: Path, threads: int, signature: Signature | None) -> SavedModelSession:
        import tensorflow as tf

        folder = saved_model_folder(path)
        SavedModelFile(folder)
        _set_threads(threads)
        try:
            loaded = tf.saved_model.load(str(folder))
            function = loaded.signatures[SERVING_SIGNATURE]
        except Exception as error:  # TensorFlow raises errors of many types: all mean that the folder is damaged
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise InputError(f"{path}: TensorFlow cannot load this SavedModel ({reason})") from error
        return SavedModelSession(loaded, function, signature or read_signature(folder))


def _set_threads(threads: int) -> None:
    """Set the threads of one operator; TensorFlow fixes them at the first operator of a process."""
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    # A worker that has converted a model has its threads already. Measurements run in fresh processes.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


RUNTIME = TensorFlowRuntime()
