"""Loading Keras files on any backend of Keras without executing code that they contain."""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import Build
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import TensorSpec
from edgekit.sources._keras_precision import layers_in
from edgekit.sources._keras_structure import call

# Longer than any metadata.json that Keras writes.
_MAX_METADATA_BYTES = 1 << 16
# Layers whose tables TensorFlow alone looks values up in.
_LOOKUP_LAYERS = ("StringLookup", "IntegerLookup", "TextVectorization", "Hashing", "HashedCrossing")


def load_model(path: Path, build: Build | None, inputs: Sequence[TensorSpec], backend: str = "") -> Any:
    """Load a Keras model in inference mode.

    Args:
        path: A whole model (`.keras`, `.h5`), or a file of weights.
        build: Builds the network for a file of weights; None for a whole model.
        inputs: The inputs that the network is built for; unused for a whole model.
        backend: How error messages name the backend, such as ` on its torch backend`.

    Returns:
        The Keras model, not trainable, with all floating-point layers in float32.

    Raises:
        InputError: The file is damaged, contains code, does not fit the network that `build` returns, or is of a kind
            that no target has operators for.
    """
    with layers_in("float32"):
        model = _load_whole_model(path, backend) if build is None else _load_weights(path, build, inputs)
        model = _with_symbolic_batch(model)
    _refuse_unsupported(model, path)
    # A user's class may define `trainable` without a setter; inference does not depend on it.
    with contextlib.suppress(AttributeError):
        model.trainable = False
    return model


def load_source(path: Path, build: Build | None, inputs: Sequence[TensorSpec], backend: str = "") -> Any:
    """Load the model of a source folder; see `load_model` for arguments and errors.

    `build` is used for `.weights.h5` files only: a whole model needs no code, even if its record names some.
    """
    return load_model(path, build if path.name.endswith(".weights.h5") else None, inputs, backend)


def _load_whole_model(path: Path, backend: str) -> Any:
    import keras

    try:
        # safe_mode refuses Lambda layers, whose pickled bytecode would run. compile=False: losses may be custom code.
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # zip, h5 and JSON errors of many types: all mean that the file is no model
        text = str(error)
        reason = next(iter(text.splitlines()), type(error).__name__)[:200]
        advice = "name the function that builds it instead: edgekit export FILE.py:FUNCTION --weights WEIGHTS"
        # Keras raises plain ValueError and TypeError; only its texts (3.x: .keras and .h5) tell the causes apart.
        if "arbitrary code execution" in text or "Could not locate function" in text:
            raise InputError(
                f"{path}: this model contains Python code (a Lambda layer), which edgekit does not execute; if you"
                f" trust it, {advice}"
            ) from error
        if "No model config found" in text:
            raise InputError(f"{path}: this file holds weights without a network; {advice}") from error
        version = _written_by(path)
        if version.startswith("2."):
            raise InputError(
                f"{path}: this file was written by Keras {version}, and Keras 3 does not read it ({reason}); in an"
                f" environment with Keras 2 (pip install tf_keras), export it as a SavedModel, which edgekit takes:"
                f" tf_keras.models.load_model('{path.name}').export('{path.stem}_saved_model')"
            ) from error
        custom = re.search(r"Could not locate class '(\w+)'|Unknown layer: '?(\w+)", text)
        if custom:
            layer = custom[1] or custom[2]
            raise InputError(f"{path}: this model contains the custom layer {layer}; {advice}") from error
        raise InputError(
            f"{path}: Keras cannot load this file{backend}: it is not a Keras model, or it is damaged ({reason})"
        ) from error


def _written_by(path: Path) -> str:
    """Return the version of Keras that a file says it was written by; empty if it does not say."""
    import h5py

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as stream:
                return str(json.loads(stream.read(_MAX_METADATA_BYTES))["keras_version"])
        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "")
            return version.decode() if isinstance(version, bytes) else str(version)
    except Exception:  # noqa: BLE001 - a damaged file says nothing
        return ""


def build_model(build: Build, inputs: Sequence[TensorSpec]) -> Any:
    """Build a model with the user's code, variables included.

    Args:
        build: The user's code.
        inputs: The inputs that a subclassed model is called with once; symbolic dimensions become 2.

    Returns:
        The built `keras.Model`, with all floating-point layers in float32.

    Raises:
        InputError: The code returns an object of another type.
    """
    import keras

    with layers_in("float32"):
        model = build()
        if not isinstance(model, keras.Model):
            raise InputError(f"the code returns an object of type {type(model).__name__}, not a keras.Model")
        if not model.built:  # a subclassed model creates its variables when it is first called
            call(model, example_inputs(inputs), [spec.name for spec in inputs])
        model = _with_symbolic_batch(model)
    _refuse_unsupported(model, "the model")
    return model


def _with_symbolic_batch(model: Any) -> Any:
    """Return a Sequential whose batch is symbolic, over the same layers; any other model as it is.

    A Sequential without an Input takes the shape of the first data that it is called with, number of samples included.
    """
    import keras

    if not isinstance(model, keras.Sequential) or not model.inputs:
        return model
    first = model.inputs[0]
    # A stateful layer has one state for each sample of its fixed batch.
    if first.shape[0] is None or any(getattr(layer, "stateful", False) for layer in model._flatten_layers()):
        return model
    opened = keras.Input(batch_shape=(None, *first.shape[1:]), dtype=first.dtype, name=first.name)
    return keras.Sequential([opened, *model.layers], name=model.name)


def example_inputs(inputs: Sequence[TensorSpec]) -> list[Array]:
    """Return zeros as inputs; symbolic dimensions become 2.

    Args:
        inputs: The specs of the inputs.
    """
    return [np.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], spec.dtype) for spec in inputs]


def _refuse_unsupported(model: Any, subject: Path | str) -> None:
    """Raise InputError for a model that has no weights, or layers that no target has operators for.

    Args:
        model: The Keras model.
        subject: How error messages name the model.
    """
    if not model.built:
        raise InputError(
            f"{subject}: this model was saved before it had weights; call it on data once, or begin it with"
            " keras.Input, and save it again"
        )
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None):
            raise InputError(
                f"{subject}: the layer '{layer.name}' was quantized by model.quantize('{layer.quantization_mode}'),"
                " and no converter reads such weights; save the model before that, and let edgekit quantize it:"
                " edgekit export MODEL --target tflite:int8"
            )
        if type(layer).__name__ in _LOOKUP_LAYERS:
            raise InputError(
                f"{subject}: the layer '{layer.name}' ({type(layer).__name__}) looks values up in a table, which no"
                " target can; save the part of the model behind it, keras.Model(LAYER.output, model.output), and"
                " compute the layer in the application"
            )


def policy_note(model: Any) -> str | None:
    """Return the note that a model's layers compute in float32 rather than by their policies, or None if they do.

    Args:
        model: A model that this module loaded or built.
    """
    # A replaced policy keeps its name: see `layers_in`.
    policies = sorted({layer.dtype_policy.name for layer in model._flatten_layers()} - {"float32"})
    if not policies:
        return None
    return f"the layers of the policy {', '.join(policies)} were rebuilt in float32, in which the source is run too"


def _load_weights(path: Path, build: Build, inputs: Sequence[TensorSpec]) -> Any:
    model = build_model(build, inputs)
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: these weights do not fit the network that the code builds ({reason})") from error
    return model


@contextlib.contextmanager
def record_layers() -> Iterator[dict[str, Array]]:
    """Record the result of every innermost layer while the block runs.

    Yields:
        A dictionary that the block fills: results by the path of the layer (`block/conv`), in the order of the calls.
    """
    import keras

    results: dict[str, Array] = {}
    path: list[str] = []
    original = keras.layers.Layer.__call__

    def recording(layer: Any, *args: Any, **kwargs: Any) -> Any:
        path.append(layer.name)
        before = len(results)
        try:
            result = original(layer, *args, **kwargs)
        finally:
            name = "/".join(path[1:])  # path[0] is the model itself
            path.pop()
        # A layer that contains others has recorded their results by now: its own would repeat the last one.
        if name and len(results) == before and hasattr(result, "numpy") and "float" in str(result.dtype):
            calls = sum(1 for key in results if key == name or key.rpartition(" ")[0] == name)
            results[f"{name} {calls}" if calls else name] = np.asarray(result)
        return result

    # Keras has no hook on calls, and a subclassed model has no graph from which a model of inner outputs could be cut.
    keras.layers.Layer.__call__ = recording
    try:
        yield results
    finally:
        keras.layers.Layer.__call__ = original
