"""The source kind of Keras models: `.keras` and `.h5` files, loaded with safe_mode so that no code in them runs."""

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
from edgekit.sources._keras_file import (
    build_model,
    call,
    input_keys,
    load_model,
    load_source,
    output_keys,
    record_layers,
)

VARIABLES = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # Without GPUs, results do not depend on the machine, and TensorFlow does not reserve all of a GPU's memory.
    "CUDA_VISIBLE_DEVICES": "-1",
    # oneDNN selects kernels, and thereby rounding, by the CPU's instruction set.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
# Names that Keras invents for unnamed inputs: they count all tensors of the process, so they differ between runs.
_GENERATED_NAME = re.compile(r"keras_tensor(_\d+)?")


class LoadedKeras(LoadedModel):
    """A Keras model on the TensorFlow backend."""

    kind = "keras"

    def _run(self, inputs: list[Array]) -> list[Array]:
        return [np.asarray(output) for output in call(self.model, inputs)]

    def call(self, *tensors: Any) -> list[Any]:
        return call(self.model, tensors)

    def _trace(self, inputs: list[Array]) -> dict[str, Array]:
        with record_layers() as results:
            call(self.model, inputs)
        return results

    def _in_float64(self) -> Any:
        import keras

        def float64_layer(layer: Any) -> Any:
            return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

        original = keras.config.floatx()
        # clone_model creates the inputs itself, with floatx: clone_function is not called for InputLayers.
        keras.config.set_floatx("float64")
        try:
            wide = keras.models.clone_model(self.model, clone_function=float64_layer)
            wide.set_weights([np.asarray(weight, np.float64) for weight in self.model.get_weights()])
        finally:
            keras.config.set_floatx(original)
        return wide

    def parameters(self) -> dict[str, Array]:
        # The index makes names unique: layers of equal name give weights of equal path.
        return {f"{index}/{weight.path}": np.asarray(weight) for index, weight in enumerate(self.model.weights)}

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        import keras

        specs = list(zip(self.signature.inputs, inputs, strict=True))
        outer = [_outer_input(spec, order) for spec, order in specs]
        inner = [_permute(tensor, order) for tensor, (_, order) in zip(outer, specs, strict=True)]
        results = call(self.model, inner)
        return keras.Model(outer, [_permute(tensor, order) for tensor, order in zip(results, outputs, strict=True)])


def _outer_input(spec: TensorSpec, order: Permutation | None) -> Any:
    import keras

    shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    shape = shape if order is None else [shape[index] for index in np.argsort(order)]  # argsort inverts a permutation
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
    return [unnamed.format(index) if _GENERATED_NAME.fullmatch(name) else name for index, name in enumerate(keys)]


def signature(model: Any) -> Signature | None:
    """Return the signature of a functional or sequential model.

    Args:
        model: The Keras model.

    Returns:
        Inputs and outputs with their names and shapes; None for a subclassed model, which does not describe them.
    """
    if not getattr(model, "inputs", None):
        return None
    outputs = output_keys(model) or list(getattr(model, "output_names", None) or [model.layers[-1].name])
    # Nested structures have one name for several tensors.
    if len(outputs) != len(model.outputs):
        outputs = [f"output_{index}" for index in range(len(model.outputs))]
    return Signature(_specs(model.inputs, _input_names(model)), _specs(model.outputs, outputs))


class KerasSource(SourceKind):
    """The kind of Keras models; channels last."""

    name = "keras"
    requires = (KERAS, TENSORFLOW)
    variables = VARIABLES
    layout = "last"
    suffixes = (".keras", ".h5", ".hdf5")

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedKeras:
        return LoadedKeras(load_source(path, build, signature.inputs), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        if user_model.path is not None:
            file = f"model{user_model.path.suffix.lower()}"
            model = load_model(user_model.path, None, ())
            shutil.copyfile(user_model.path, folder / file)
        else:
            assert user_model.build is not None  # a model is a file or code
            inputs = user_model.inputs or (declared_inputs(user_model) if user_model.examples else ())
            file = "model.weights.h5"
            if user_model.weights is None:
                model = build_model(user_model.build, inputs)
            else:
                model = load_model(user_model.weights, user_model.build, inputs)
            model.save_weights(folder / file)
        described = signature(model)
        if described is None:
            return file, Signature(declared_inputs(user_model), unknown_outputs(["output"]))
        return file, reconcile_signature(described, user_model, "the model")


SOURCE = KerasSource()
