"""The source kind of Keras models: `.keras` and `.h5` files, loaded with safe_mode so that no code in them runs."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
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
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.channel_scales import ChannelGroups
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.fixed_inputs import FixedInput
from edgekit.core.values.preprocessing import Preprocessing, with_raw
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources import _keras_structure
from edgekit.sources._keras_file import (
    build_model,
    example_inputs,
    load_model,
    load_source,
    policy_note,
    record_layers,
)
from edgekit.sources._keras_norms import compiled
from edgekit.sources._keras_precision import layers_in
from edgekit.sources._preprocess_keras import preprocess_layer

VARIABLES = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # Without GPUs, results do not depend on the machine, and TensorFlow does not reserve all of a GPU's memory.
    "CUDA_VISIBLE_DEVICES": "-1",
    # oneDNN selects kernels, and thereby rounding, by the CPU's instruction set.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
# The names that TensorFlow accepts for scopes, and the characters that they do not contain.
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_NO_SCOPE = re.compile(r"[^A-Za-z0-9_.\\/>-]")
# Names that Keras invents for unnamed inputs: they count all tensors of the process, so they differ between runs.
_GENERATED_NAME = re.compile(r"keras_tensor(_\d+)?")
# Samples that ranges of channels are measured with.
_RANGE_SAMPLES = 64


@functools.cache
def accept_layer_names() -> None:
    """Let Keras trace layers of any name: TensorFlow refuses graphs with a scope such as `größe:0`."""
    import tensorflow as tf
    from keras.src.backend.tensorflow.core import name_scope

    original = name_scope.__init__

    def initialize(self: Any, name: str, **kwargs: Any) -> None:
        # Created with a plain name, whatever Keras's own record of the path keeps.
        original(self, name, **kwargs)
        if not _SCOPE.fullmatch(name):
            self._tf_name_scope = tf.name_scope("layer" + _NO_SCOPE.sub("_", name))

    name_scope.__init__ = initialize


@contextlib.contextmanager
def _inner_functions_inlined() -> Iterator[None]:
    """Have functions that layers compile by themselves traced as part of the graph around them.

    Keras compiles grouped convolutions by XLA. tf2onnx 1.17 has no operator for the call of such a function.
    """
    import tensorflow as tf

    if not tf.inside_function():
        yield
        return
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # inside a trace: their Python code is called, and traced
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


class LoadedKeras(LoadedModel):
    """A Keras model on the TensorFlow backend."""

    kind = "keras"

    def __init__(self, model: Any, signature: Signature) -> None:
        super().__init__(model, signature)
        note = policy_note(model)
        self.notes = () if note is None else (note,)

    def _run(self, inputs: list[Array]) -> list[Array]:
        return [np.asarray(output) for output in self.call(*inputs)]

    def call(self, *tensors: Any) -> list[Any]:
        names = [spec.name for spec in self.signature.inputs]
        with _inner_functions_inlined():
            return _keras_structure.call(self.model, tensors, names)

    def _trace(self, inputs: list[Array]) -> dict[str, Array]:
        with record_layers() as results:
            self.call(*inputs)
        return results

    def _in_float64(self) -> Any:
        import keras

        original = keras.config.floatx()
        # clone_model creates the inputs itself, with floatx.
        keras.config.set_floatx("float64")
        try:
            with layers_in("float64"):
                wide = keras.models.clone_model(self.model)
            wide.set_weights([np.asarray(weight, np.float64) for weight in self.model.get_weights()])
        finally:
            keras.config.set_floatx(original)
        return wide

    def parameters(self) -> dict[str, Array]:
        # The index makes names unique: layers of equal name give weights of equal path.
        return {f"{index}/{weight.path}": np.asarray(weight) for index, weight in enumerate(self.model.weights)}

    def state(self) -> Mapping[str, Array]:
        # Seeds are left out: random numbers are no state.
        return {
            name: np.asarray(variable) for name, variable in self._variables().items() if "seed_generator" not in name
        }

    def _set_state(self, values: Mapping[str, Array]) -> None:
        variables = self._variables()
        for name, value in values.items():
            variables[name].assign(value)

    def _variables(self) -> dict[str, Any]:
        import keras

        variables = list(getattr(self.model, "non_trainable_variables", ()))
        # The states of recurrent layers are in no list of variables.
        for layer in self.model._flatten_layers():
            if getattr(layer, "stateful", False) and getattr(layer, "states", None):
                variables += keras.tree.flatten(layer.states)
        return {f"{index}/{variable.path}": variable for index, variable in enumerate(variables)}

    def random_operators(self, inputs: Mapping[str, Array]) -> tuple[str, ...]:
        def seeds() -> dict[str, bytes]:
            return {
                name: np.asarray(variable).tobytes()
                for name, variable in self._variables().items()
                if "seed_generator" in name
            }

        before = seeds()
        self._run([inputs[spec.name] for spec in self.signature.inputs])
        drawn = (name.partition("/")[2] for name, value in seeds().items() if value != before[name])
        return tuple(dict.fromkeys(name.partition("/seed_generator")[0] for name in drawn))

    def _channel_ranges(self, inputs: Mapping[str, Array]) -> tuple[ChannelGroups, Mapping[str, Array]] | None:
        from edgekit.sources._keras_channels import channel_groups, measure

        found = channel_groups(self.model)
        if found is None:
            return None
        groups, tensors = found
        axes = {name: groups.axis(name) for names in groups.free.values() for name in names}
        samples = batching.select_samples(
            self.signature, inputs, 0, min(_RANGE_SAMPLES, batching.n_samples(self.signature, inputs))
        )
        calls = batching.iter_batches(self.signature, samples, _RANGE_SAMPLES)
        return groups, measure(self.model, tensors, axes, calls)

    def _norm_gradient(self, calls: Sequence[list[Array]]) -> tuple[float, int, list[list[Array]]]:
        return self.cached("norm gradient", lambda: compiled(self.call))(calls)

    def _with_parameters(self, values: Mapping[str, Array]) -> LoadedKeras:
        import keras

        model = keras.models.clone_model(self.model)
        parameters = {**self.parameters(), **values}
        model.set_weights(list(parameters.values()))
        return LoadedKeras(model, self.signature)

    def _with_constants(self, constants: Sequence[FixedInput | None]) -> Any:
        import keras

        pairs = list(zip(self.signature.inputs, constants, strict=True))
        outer = [_outer_input(spec, None) for spec, item in pairs if item is None]
        rest, batch = iter(outer), outer[self.batch_input(constants) or 0]
        inner = [next(rest) if item is None else _constant_layer(item)(batch) for _, item in pairs]
        return keras.Model(outer, self.call(*inner))

    def _with_steps(self, steps: Sequence[Preprocessing | None]) -> Any:
        import keras

        pairs = list(zip(with_raw(self.signature, [item for item in steps if item]).inputs, steps, strict=True))
        outer = [_outer_input(spec, None) for spec, _ in pairs]
        inner = [x if item is None else preprocess_layer(item)(x) for x, (_, item) in zip(outer, pairs, strict=True)]
        return keras.Model(outer, self.call(*inner))

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        import keras

        specs = list(zip(self.signature.inputs, inputs, strict=True))
        outer = [_outer_input(spec, order) for spec, order in specs]
        inner = [_permute(tensor, order) for tensor, (_, order) in zip(outer, specs, strict=True)]
        results = self.call(*inner)
        return keras.Model(outer, [_permute(tensor, order) for tensor, order in zip(results, outputs, strict=True)])


def _outer_input(spec: TensorSpec, order: Permutation | None) -> Any:
    import keras

    shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    shape = shape if order is None else [shape[index] for index in np.argsort(order)]  # argsort inverts a permutation
    return keras.Input(batch_shape=shape, dtype=spec.dtype, name=spec.name)


def _constant_layer(item: FixedInput) -> Any:
    """Return a layer that computes a constant, whose batch is that of its input where it has one."""
    import keras

    array = item.array()
    follows = bool(item.spec.shape) and isinstance(item.spec.shape[0], str)

    class FixedValue(keras.layers.Layer):  # type: ignore[misc]
        """A fixed input of the model."""

        def call(self, x: Any) -> Any:
            value = keras.ops.convert_to_tensor(array)
            return keras.ops.broadcast_to(value, (keras.ops.shape(x)[0], *array.shape[1:])) if follows else value

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor((x.shape[0], *array.shape[1:]) if follows else array.shape, item.spec.dtype)

    return FixedValue(name=f"fixed_{item.position}", dtype=item.spec.dtype)


def _permute(tensor: Any, order: Permutation | None) -> Any:
    import keras

    return tensor if order is None else keras.ops.transpose(tensor, order)


def _specs(tensors: Sequence[Any], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    def spec(tensor: Any, name: str) -> TensorSpec:
        symbols = ["batch", *(f"{name}_dim{index}" for index in range(1, len(tensor.shape)))]
        # strict=False: a scalar has no dimensions, but `symbols` has at least the batch.
        dims = [symbol if dim is None else int(dim) for dim, symbol in zip(tensor.shape, symbols, strict=False)]
        return TensorSpec(name, tuple(dims), str(tensor.dtype))

    return tuple(spec(tensor, name) for tensor, name in zip(tensors, names, strict=True))


def _input_names(leaves: Sequence[tuple[_keras_structure.Path, Any]]) -> list[str]:
    # The keys of a plain dict name the tensors; in deeper structures, Keras's own names are shorter and unique.
    keys = [path[0] if len(path) == 1 and isinstance(path[0], str) else tensor.name for path, tensor in leaves]
    unnamed = "input" if len(keys) == 1 else "input_{}"
    return [unnamed.format(index) if _GENERATED_NAME.fullmatch(name) else name for index, name in enumerate(keys)]


def _output_name(path: _keras_structure.Path, tensor: Any) -> str:
    """Return the key of an output in the structure, or the name of the layer that computes it."""
    if any(isinstance(key, str) for key in path):
        return _keras_structure.joined(path)
    name: str = tensor._keras_history.operation.name
    return name


def signature(model: Any) -> Signature | None:
    """Return the signature of a functional or sequential model.

    Args:
        model: The Keras model.

    Returns:
        Inputs and outputs in the order of the structures that the model takes and returns, with names that are unique
        among all of them: an output that is returned twice, or that is an input, gets a number behind its name. None
        for a subclassed model, which does not describe them.
    """
    known = _keras_structure.structures(model)
    if known is None:
        return None
    inputs, outputs = map(_keras_structure.flatten, known)
    input_names = _keras_structure.unique(_input_names(inputs))
    # Formats such as ONNX have one name space for inputs and outputs.
    output_names = _keras_structure.unique([_output_name(path, tensor) for path, tensor in outputs], input_names)
    return Signature(
        _specs([tensor for _, tensor in inputs], input_names), _specs([tensor for _, tensor in outputs], output_names)
    )


def _observed_names(model: Any, inputs: Sequence[TensorSpec], user_model: UserModel) -> list[str]:
    """Return the names of a subclassed model's outputs, which one call shows."""
    names = [spec.name for spec in inputs]
    examples = user_model.examples or {}
    # Real samples, where there are any: zeros may be no valid input.
    arrays = [examples[name][:2] for name in names] if examples.keys() >= {*names} else example_inputs(inputs)
    try:
        result = _keras_structure.call_structured(model, arrays, names)
    except Exception as error:  # the user's code may raise anything
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        raise InputError(f"the model does not take these inputs ({'; '.join(map(str, inputs))}): {reason}") from error
    return _keras_structure.unique(_keras_structure.names_of_result(model, result), names)


class KerasSource(SourceKind):
    """The kind of Keras models; channels last."""

    name = "keras"
    requires = (KERAS, TENSORFLOW)
    variables = VARIABLES
    layout = "last"
    suffixes = (".keras", ".h5", ".hdf5")

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedKeras:
        accept_layer_names()
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
            inputs = declared_inputs(user_model)
            return file, Signature(inputs, unknown_outputs(_observed_names(model, inputs, user_model)))
        return file, reconcile_signature(described, user_model, "the model")


SOURCE = KerasSource()
