"""Loading Keras files on whichever backend Keras runs, so that nothing in them is executed."""

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
    """The model in inference mode: a whole file, or weights in the network that `build` makes for those inputs.

    Raises InputError when the file is damaged, holds code, or does not fit what `build` makes.
    """
    model = _whole(path, backend) if build is None else _filled(path, build, inputs)
    with contextlib.suppress(AttributeError):
        model.trainable = False
    return model


def load_source(path: Path, build: Build | None, inputs: Sequence[TensorSpec], backend: str = "") -> Any:
    """The model of a source folder: only a file of bare weights needs the code that its description names."""
    return load_model(path, build if path.name.endswith(".weights.h5") else None, inputs, backend)


def _whole(path: Path, backend: str) -> Any:
    import keras

    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # zip, h5 and JSON errors of many types: all mean that the file is no model
        text = str(error)
        reason = next(iter(text.splitlines()), type(error).__name__)[:200]
        instead = "name the function that builds it instead: edgekit export FILE.py:FUNCTION --weights WEIGHTS"
        if "arbitrary code execution" in text or "Could not locate function" in text:
            raise InputError(
                f"{path}: this model holds Python code (a Lambda layer), which edgekit does not execute; if you trust"
                f" it, {instead}"
            ) from error
        own = re.search(r"Could not locate class '(\w+)'|Unknown layer: '?(\w+)", text)
        if own:
            layer = own[1] or own[2]
            raise InputError(f"{path}: this model has a layer of its own, {layer}; {instead}") from error
        raise InputError(
            f"{path}: Keras cannot load this file{backend}: it is not a Keras model, or it is damaged ({reason})"
        ) from error


def built(build: Build, inputs: Sequence[TensorSpec]) -> Any:
    """The model that the code makes, its variables made too. Raises InputError when it makes something else."""
    import keras

    model = build()
    if not isinstance(model, keras.Model):
        raise InputError(f"what the code makes is of type {type(model).__name__}, not a keras.Model")
    if not model.built:  # a subclassed model makes its variables when it is first called
        call(
            model, [np.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], spec.dtype) for spec in inputs]
        )
    return model


def _filled(path: Path, build: Build, inputs: Sequence[TensorSpec]) -> Any:
    model = built(build, inputs)
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: these weights do not fit the network that the code builds ({reason})") from error
    return model


def call(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a Keras model in inference mode, in order, for inputs in order, whichever structure it has."""
    names = input_keys(model)
    arguments: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    if names is not None:
        arguments = dict(zip(names, inputs, strict=True))
    result = model(arguments, training=False)
    results = [result[name] for name in output_keys(model) or result] if isinstance(result, dict) else result
    return list(results) if isinstance(results, (list, tuple)) else [results]


def input_keys(model: Any) -> list[str] | None:
    """The keys of a model that takes a dict; None for every other."""
    structure = model.input if getattr(model, "inputs", None) else None
    return list(structure) if isinstance(structure, dict) else None


def output_keys(model: Any) -> list[str] | None:
    """The keys of a functional model that returns a dict; None for every other."""
    structure = model.output if getattr(model, "inputs", None) else None
    return list(structure) if isinstance(structure, dict) else None


@contextlib.contextmanager
def watched_layers() -> Iterator[dict[str, Array]]:
    """What every layer without layers of its own returns while the block runs, by its path, in order."""
    import keras

    found: dict[str, Array] = {}
    path: list[str] = []
    usual = keras.layers.Layer.__call__

    def watching(layer: Any, *args: Any, **kwargs: Any) -> Any:
        path.append(layer.name)
        before = len(found)
        try:
            result = usual(layer, *args, **kwargs)
        finally:
            name = "/".join(path[1:])  # the model itself is no layer of its own
            path.pop()
        if name and len(found) == before and hasattr(result, "numpy") and "float" in str(result.dtype):
            same = sum(1 for other in found if other == name or other.rpartition(" ")[0] == name)
            found[f"{name} {same}" if same else name] = np.asarray(result)
        return result

    keras.layers.Layer.__call__ = watching
    try:
        yield found
    finally:
        keras.layers.Layer.__call__ = usual
