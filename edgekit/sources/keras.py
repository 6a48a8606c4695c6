"""Keras models: a `.keras` file, loaded with safe_mode, so that nothing in it is executed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.metrics import Array
from edgekit.core.requirements import KERAS, TENSORFLOW
from edgekit.core.specs import Signature
from edgekit.sources._base import Loaded, SourceKind

VARIABLES = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "-1",
    # oneDNN picks other kernels, and so other roundings, from one CPU to the next.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


class LoadedKeras(Loaded):
    """A Keras model on the TensorFlow backend."""

    kind = "keras"

    def _run(self, inputs: list[Array]) -> list[Array]:
        result: Any = self.model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        outputs = list(result.values()) if isinstance(result, dict) else result
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        return [np.asarray(output) for output in outputs]

    def parameters(self) -> dict[str, Array]:
        return {f"{index}/{weight.path}": np.asarray(weight) for index, weight in enumerate(self.model.weights)}


class Keras(SourceKind):
    """Channels last, float32."""

    name = "keras"
    requires = (KERAS, TENSORFLOW)
    variables = VARIABLES
    layout = "last"

    def load(self, path: Path, signature: Signature, code: Path | None) -> LoadedKeras:
        import keras

        try:
            model = keras.models.load_model(path, safe_mode=True, compile=False)
        except Exception as error:  # zip, h5 and JSON errors of many types: all mean that the file is no model
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise InputError(f"{path}: this is not a Keras model, or it is damaged ({reason})") from error
        with contextlib.suppress(AttributeError):
            model.trainable = False
        return LoadedKeras(model, signature)


SOURCE = Keras()
