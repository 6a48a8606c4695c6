"""Loading Keras files on any backend of Keras without executing code that they contain."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import Build
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import TensorSpec


def load_model(path: Path, build: Build | None, inputs: Sequence[TensorSpec], backend: str = "") -> Any:
    """Load a Keras model in inference mode.

    Args:
        path: A whole model (`.keras`, `.h5`), or a file of weights.
        build: Builds the network for a file of weights; None for a whole model.
        inputs: The inputs that the network is built for; unused for a whole model.
        backend: How error messages name the backend, such as ` on its torch backend`.

    Returns:
        The Keras model, not trainable.

    Raises:
        InputError: The file is damaged, contains code, or does not fit the network that `build` returns.
    """
    model = _load_whole_model(path, backend) if build is None else _load_weights(path, build, inputs)
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
        custom = re.search(r"Could not locate class '(\w+)'|Unknown layer: '?(\w+)", text)
        if custom:
            layer = custom[1] or custom[2]
            raise InputError(f"{path}: this model contains the custom layer {layer}; {advice}") from error
        raise InputError(
            f"{path}: Keras cannot load this file{backend}: it is not a Keras model, or it is damaged ({reason})"
        ) from error


def build_model(build: Build, inputs: Sequence[TensorSpec]) -> Any:
    """Build a model with the user's code, variables included.

    Args:
        build: The user's code.
        inputs: The inputs that a subclassed model is called with once; symbolic dimensions become 2.

    Returns:
        The built `keras.Model`.

    Raises:
        InputError: The code returns an object of another type.
    """
    import keras

    model = build()
    if not isinstance(model, keras.Model):
        raise InputError(f"the code returns an object of type {type(model).__name__}, not a keras.Model")
    if not model.built:  # a subclassed model creates its variables when it is first called
        call(
            model, [np.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], spec.dtype) for spec in inputs]
        )
    return model


def _load_weights(path: Path, build: Build, inputs: Sequence[TensorSpec]) -> Any:
    model = build_model(build, inputs)
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: these weights do not fit the network that the code builds ({reason})") from error
    return model


def call(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """Call a Keras model in inference mode, whatever the structure of its inputs and outputs.

    Args:
        model: The Keras model.
        inputs: One tensor per input, in order.

    Returns:
        One tensor per output, in order.
    """
    names = input_keys(model)
    arguments: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    if names is not None:
        arguments = dict(zip(names, inputs, strict=True))
    result = model(arguments, training=False)
    results = [result[name] for name in output_keys(model) or result] if isinstance(result, dict) else result
    return list(results) if isinstance(results, (list, tuple)) else [results]


def input_keys(model: Any) -> list[str] | None:
    """Return the keys of a model that takes a dict, None for every other model."""
    structure = model.input if getattr(model, "inputs", None) else None
    return list(structure) if isinstance(structure, dict) else None


def output_keys(model: Any) -> list[str] | None:
    """Return the keys of a functional model that returns a dict, None for every other model."""
    structure = model.output if getattr(model, "inputs", None) else None
    return list(structure) if isinstance(structure, dict) else None


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
