"""Keras models: `.keras` and `.h5` files, loaded with safe_mode, so that nothing in them is executed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import (
    Build,
    LoadedModel,
    SourceKind,
    UserModel,
    declared_inputs,
    reconcile_signature,
    unknown_outputs,
)
from edgekit.core.environment.requirements import KERAS, TENSORFLOW
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._keras_file import built, call, input_keys, load_model, load_source, output_keys, watched_layers

VARIABLES = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "-1",
    # oneDNN picks other kernels, and so other roundings, from one CPU to the next.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
_COUNTED = re.compile(r"keras_tensor(_\d+)?")


class LoadedKeras(LoadedModel):
    """A Keras model on the TensorFlow backend."""

    kind = "keras"

    def _run(self, inputs: list[Array]) -> list[Array]:
        return [np.asarray(output) for output in call(self.model, inputs)]

    def call(self, *tensors: Any) -> list[Any]:
        return call(self.model, tensors)

    def _trace(self, inputs: list[Array]) -> dict[str, Array]:
        with watched_layers() as found:
            call(self.model, inputs)
        return found

    def _in_float64(self) -> Any:
        import keras

        def twin(layer: Any) -> Any:
            return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

        usual = keras.config.floatx()
        keras.config.set_floatx("float64")  # inputs have no dtype of their own in the layers' configuration
        try:
            wide = keras.models.clone_model(self.model, clone_function=twin)
            wide.set_weights([np.asarray(weight, np.float64) for weight in self.model.get_weights()])
        finally:
            keras.config.set_floatx(usual)
        return wide

    def parameters(self) -> dict[str, Array]:
        return {f"{index}/{weight.path}": np.asarray(weight) for index, weight in enumerate(self.model.weights)}

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        import keras

        specs = list(zip(self.signature.inputs, inputs, strict=True))
        outer = [_outer_input(spec, order) for spec, order in specs]
        inner = [_permute(tensor, order) for tensor, (_, order) in zip(outer, specs, strict=True)]
        found = call(self.model, inner)
        return keras.Model(outer, [_permute(tensor, order) for tensor, order in zip(found, outputs, strict=True)])


def _outer_input(spec: TensorSpec, order: Permutation | None) -> Any:
    import keras

    shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    shape = shape if order is None else [shape[index] for index in np.argsort(order)]
    return keras.Input(batch_shape=shape, dtype=spec.dtype, name=spec.name)


def _permute(tensor: Any, order: Permutation | None) -> Any:
    import keras

    return tensor if order is None else keras.ops.transpose(tensor, order)


def _specs(tensors: Sequence[Any], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    def spec(tensor: Any, name: str) -> TensorSpec:
        symbols = ["batch", *(f"{name}_dim{index}" for index in range(1, len(tensor.shape)))]
        dims = [symbol if dim is None else int(dim) for dim, symbol in zip(tensor.shape, symbols, strict=True)]
        return TensorSpec(name, tuple(dims), str(tensor.dtype))

    return tuple(spec(tensor, name) for tensor, name in zip(tensors, names, strict=True))


def _input_names(model: Any) -> list[str]:
    keys = input_keys(model) or [tensor.name for tensor in model.inputs]
    unnamed = "input" if len(keys) == 1 else "input_{}"
    return [unnamed.format(index) if _COUNTED.fullmatch(name) else name for index, name in enumerate(keys)]


def signature(model: Any) -> Signature | None:
    """Inputs and outputs of a model that knows them; None for one that was only built by code."""
    if not getattr(model, "inputs", None):
        return None
    outputs = output_keys(model) or list(getattr(model, "output_names", None) or [model.layers[-1].name])
    if len(outputs) != len(model.outputs):
        outputs = [f"output_{index}" for index in range(len(model.outputs))]
    return Signature(_specs(model.inputs, _input_names(model)), _specs(model.outputs, outputs))


class Keras(SourceKind):
    """Channels last."""

    name = "keras"
    requires = (KERAS, TENSORFLOW)
    variables = VARIABLES
    layout = "last"
    suffixes = (".keras", ".h5", ".hdf5")

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedKeras:
        return LoadedKeras(load_source(path, build, signature.inputs), signature)

    def import_model(self, given: UserModel, folder: Path) -> tuple[str, Signature]:
        if given.path is not None:
            file = f"model{given.path.suffix.lower()}"
            model = load_model(given.path, None, ())
            shutil.copyfile(given.path, folder / file)
        else:
            assert given.build is not None  # a model is a file or code
            inputs = given.inputs or (declared_inputs(given) if given.examples else ())
            file = "model.weights.h5"
            if given.weights is None:
                model = built(given.build, inputs)
            else:
                model = load_model(given.weights, given.build, inputs)
            model.save_weights(folder / file)
        found = signature(model)
        if found is None:
            return file, Signature(declared_inputs(given), unknown_outputs(["output"]))
        return file, reconcile_signature(found, given, "the model")


SOURCE = Keras()
