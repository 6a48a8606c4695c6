"""The source kind of TensorFlow SavedModels: one of their signatures, by default `serving_default` or the only one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import Build, LoadedModel, SourceKind, UserModel, reconcile_signature
from edgekit.core.environment.contained_files import open_plain_file, require_plain_file
from edgekit.core.environment.requirements import TENSORFLOW
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.fixed_inputs import FixedInput
from edgekit.core.values.preprocessing import Preprocessing
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._preprocess_tensorflow import preprocess
from edgekit.tensorflow_files.saved_model import MAIN_FILE, SavedModelFile

_DEFAULT = "serving_default"
# The file in an imported SavedModel that names the signature which the user chose.
_CHOICE = "edgekit_signature.txt"
# Longer than any name of a signature.
_MAX_NAME_BYTES = 4096


class LoadedSavedModel(LoadedModel):
    """A `tf.Module` whose `__call__` takes tensors in the signature's order and returns a list of tensors."""

    kind = "saved-model"

    def _run(self, inputs: list[Array]) -> list[Array]:
        return [np.asarray(output) for output in self.model(*inputs)]

    def call(self, *tensors: Any) -> list[Any]:
        outputs: list[Any] = self.model(*tensors)
        return outputs

    def parameters(self) -> dict[str, Array]:
        # The index makes names unique: TensorFlow allows several variables of one name.
        return {f"{index}/{variable.name}": variable.numpy() for index, variable in enumerate(self.model.read)}

    def _with_constants(self, constants: Sequence[FixedInput | None]) -> Any:
        import tensorflow as tf

        model, batch = self.model, self.batch_input(constants)

        class FixedModule(tf.Module):  # type: ignore[misc]
            """The model with constants for some of its inputs."""

            def __init__(self) -> None:
                super().__init__()
                self.inner = model.inner  # keeps the variables alive
                self.read = model.read  # for `parameters`

            def __call__(self, *tensors: Any) -> list[Any]:
                rest, rows = iter(tensors), None if batch is None else tf.shape(tensors[batch])[0]
                results: list[Any] = model(
                    *(next(rest) if item is None else _constant(item, rows) for item in constants)
                )
                return results

        return FixedModule()

    def _with_steps(self, steps: Sequence[Preprocessing | None]) -> Any:
        import tensorflow as tf

        model, specs = self.model, self.signature.inputs

        class PreprocessedModule(tf.Module):  # type: ignore[misc]
            """The model with steps in front of some of its inputs."""

            def __init__(self) -> None:
                super().__init__()
                self.inner = model.inner  # keeps the variables alive
                self.read = model.read  # for `parameters`

            def __call__(self, *tensors: Any) -> list[Any]:
                arguments = [
                    tensor if item is None else preprocess(item, tensor, spec.dtype)
                    for tensor, item, spec in zip(tensors, steps, specs, strict=True)
                ]
                results: list[Any] = model(*arguments)
                return results

        return PreprocessedModule()

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        import tensorflow as tf

        model = self.model

        class PermutedModule(tf.Module):  # type: ignore[misc]
            """The model with transposes at its inputs and outputs."""

            def __init__(self) -> None:
                super().__init__()
                self.inner = model.inner  # keeps the variables alive
                self.read = model.read  # for `parameters`

            def __call__(self, *tensors: Any) -> list[Any]:
                arguments = [_transpose(tensor, order) for tensor, order in zip(tensors, inputs, strict=True)]
                return [_transpose(tensor, order) for tensor, order in zip(model(*arguments), outputs, strict=True)]

        return PermutedModule()


def _constant(item: FixedInput, rows: Any) -> Any:
    """Return a constant with as many rows as the batch, if its first dimension is symbolic."""
    import tensorflow as tf

    array = item.array()
    follows = item.spec.shape and isinstance(item.spec.shape[0], str) and rows is not None
    return tf.broadcast_to(array, [rows, *array.shape[1:]]) if follows else tf.constant(array)


def _transpose(tensor: Any, order: Permutation | None) -> Any:
    import tensorflow as tf

    return tensor if order is None else tf.transpose(tensor, order)


class SavedModelSource(SourceKind):
    """The kind of TensorFlow SavedModels; channels last."""

    name = "saved-model"
    exposes_intermediates = False
    has_signatures = True
    requires = (TENSORFLOW,)
    # As for Keras: no GPU, and no oneDNN, whose rounding depends on the CPU's instruction set.
    variables = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    layout = "last"

    def recognizes(self, path: Path) -> bool:
        return (path / MAIN_FILE).is_file()

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedSavedModel:
        inner, function = _open(path)
        return LoadedSavedModel(_module(inner, function, signature), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        assert user_model.path is not None  # a SavedModel is a folder
        SavedModelFile(user_model.path).copy(folder / "saved_model")
        _, function = _load(folder / "saved_model", user_model.path, user_model.signature)
        if user_model.signature is not None:
            (folder / "saved_model" / _CHOICE).write_text(user_model.signature, encoding="utf-8")
        inputs = _specs(function.structured_input_signature[1].items(), user_model.path)
        outputs = _specs(function.structured_outputs.items(), user_model.path)
        return "saved_model", reconcile_signature(Signature(inputs, outputs), user_model, str(user_model.path))


def _open(path: Path) -> tuple[Any, Any]:
    """Return the loaded SavedModel and the function of its signature, after everything in the file was checked."""
    file = SavedModelFile(path)
    chosen = _chosen(path)
    if not file.rewritten:
        return _load(path, path, chosen)
    # All that is read from the folder is in memory when it is loaded.
    with tempfile.TemporaryDirectory() as folder:
        file.copy(Path(folder) / "saved_model")
        return _load(Path(folder) / "saved_model", path, chosen)


def _chosen(path: Path) -> str | None:
    """Return the name of the signature that was chosen when the SavedModel was imported, or None."""
    if not os.path.lexists(path / _CHOICE):
        return None
    require_plain_file(path, _CHOICE)
    with open_plain_file(path / _CHOICE) as stream:
        return stream.read(_MAX_NAME_BYTES).decode("utf-8", "replace")


def _load(path: Path, named: Path, chosen: str | None) -> tuple[Any, Any]:
    """Return a checked SavedModel and the function of its signature.

    Args:
        path: The folder to load.
        named: The folder that the user named, for messages.
        chosen: The name of the signature; None for the default one.

    Raises:
        InputError: The SavedModel is damaged, or has no usable signature.
    """
    import tensorflow as tf

    try:
        inner = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises errors of many types: all mean that the folder is damaged
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{named}: this is not a SavedModel, or it is damaged ({reason})") from error
    signatures = dict(inner.signatures)
    listed = ", ".join(sorted(signatures)) or "none"
    if chosen is not None:
        if chosen not in signatures:
            raise InputError(
                f"{named}: this SavedModel has no signature '{chosen}' (its signatures: {listed})",
                parameters=("signature",),
            )
        return inner, signatures[chosen]
    if _DEFAULT not in signatures and len(signatures) != 1:
        advice = "; choose one" if signatures else ""
        raise InputError(
            f"{named}: this SavedModel has no signature '{_DEFAULT}' (its signatures: {listed}){advice}",
            parameters=("signature",) if signatures else (),
        )
    return inner, signatures.get(_DEFAULT, next(iter(signatures.values())))


def _specs(tensors: Iterable[tuple[str, Any]], path: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for name, tensor in tensors:
        if tensor.shape.rank is None:
            raise InputError(f"{path}: '{name}' has no rank in this SavedModel; export it with a shape")
        if not tensor.dtype.is_floating and not tensor.dtype.is_integer and not tensor.dtype.is_bool:
            raise InputError(
                f"{path}: '{name}' is a tensor of the type {tensor.dtype.name}, which no target has; save the part of"
                " the model behind it as a SavedModel of its own, and compute the rest in the application"
            )
        symbols = ["batch", *(f"{name}_dim{index}" for index in range(1, tensor.shape.rank))]
        # strict=False: a scalar has no dimensions, but `symbols` has at least the batch.
        dims = [symbol if dim is None else int(dim) for dim, symbol in zip(tensor.shape, symbols, strict=False)]
        specs.append(TensorSpec(name, tuple(dims), tensor.dtype.name))
    return tuple(specs)


def _variables(saved: Any, function: Any) -> tuple[Any, ...]:
    """Return the variables that the function reads, in the order of the file.

    Only objects that TensorFlow can revive have `variables`: not those of a user's class, a Keras model among them. The
    object graph of every SavedModel has them, along with those of an optimizer, which no function reads.
    """
    import tensorflow as tf

    captured = {id(tensor) for tensor in function.captured_inputs}
    found = (node for node in tf.train.TrackableView(saved).descendants() if isinstance(node, tf.Variable))
    return tuple(variable for variable in found if id(variable.handle) in captured)


def _module(saved: Any, function: Any, signature: Signature) -> Any:
    import tensorflow as tf

    ins, outs = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]

    class SignatureModule(tf.Module):  # type: ignore[misc]
        """One signature of the SavedModel."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = saved  # the function holds its variables weakly
            self.read = _variables(saved, function)

        def __call__(self, *tensors: Any) -> list[Any]:
            results = function(
                **{name: tf.convert_to_tensor(tensor) for name, tensor in zip(ins, tensors, strict=True)}
            )
            return [results[name] for name in outs]

    return SignatureModule()


SOURCE = SavedModelSource()
