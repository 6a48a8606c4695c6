"""TensorFlow SavedModels: the signature `serving_default`, or the only one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import Build, LoadedModel, SourceKind, UserModel, reconcile_signature
from edgekit.core.environment.requirements import TENSORFLOW
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.specs import Signature, TensorSpec

_DEFAULT = "serving_default"
# A SavedModel is a program. Operators with these names read or write files, or run Python, when the graph runs. Those
# that restore the variables stand in every SavedModel; the signature itself may not have them either.
_REACHING_OUT = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|^Print|PyFunc|PySparse|Reader|Dataset|Sql|SummaryWriter|SummaryFile|Debug"
    r"|ImmutableConst|^Save$|SaveSlices|^Restore$|RestoreSlice|FileSystem|Snapshot"
)
_RESTORING = re.compile(r"^SaveV2$|^RestoreV2$|MergeV2Checkpoints")


class LoadedSavedModel(LoadedModel):
    """A tf.Module whose `__call__` takes tensors in the signature's order and returns a list of them."""

    kind = "saved-model"

    def _run(self, inputs: list[Array]) -> list[Array]:
        return [np.asarray(output) for output in self.model(*inputs)]

    def call(self, *tensors: Any) -> list[Any]:
        outputs: list[Any] = self.model(*tensors)
        return outputs

    def parameters(self) -> dict[str, Array]:
        return {f"{index}/{item.name}": item.numpy() for index, item in enumerate(self.model.inner.variables)}

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        import tensorflow as tf

        model = self.model

        class Relaid(tf.Module):  # type: ignore[misc]
            """The model with transposes before and behind it."""

            def __init__(self) -> None:
                super().__init__()
                self.inner = model.inner

            def __call__(self, *tensors: Any) -> list[Any]:
                arguments = [_transpose(tensor, order) for tensor, order in zip(tensors, inputs, strict=True)]
                return [_transpose(tensor, order) for tensor, order in zip(model(*arguments), outputs, strict=True)]

        return Relaid()


def _transpose(tensor: Any, order: Permutation | None) -> Any:
    import tensorflow as tf

    return tensor if order is None else tf.transpose(tensor, order)


class SavedModel(SourceKind):
    """Channels last."""

    name = "saved-model"
    exposes_intermediates = False
    requires = (TENSORFLOW,)
    variables = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    layout = "last"

    def recognizes(self, path: Path) -> bool:
        return (path / "saved_model.pb").is_file()

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedSavedModel:
        inner, function = _open(path)
        return LoadedSavedModel(_module(inner, function, signature), signature)

    def import_model(self, given: UserModel, folder: Path) -> tuple[str, Signature]:
        assert given.path is not None  # a SavedModel is a folder
        _, function = _open(given.path)
        shutil.copytree(given.path, folder / "saved_model")
        inputs = _specs(function.structured_input_signature[1].items(), given.path)
        outputs = _specs(function.structured_outputs.items(), given.path)
        return "saved_model", reconcile_signature(Signature(inputs, outputs), given, str(given.path))


def _open(path: Path) -> tuple[Any, Any]:
    """The SavedModel and its function. Raises InputError when it is damaged, reaches outside, or has no signature."""
    import tensorflow as tf

    _look_through(path)
    try:
        inner = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises errors of many types: all mean that the folder is no good
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: this is not a SavedModel, or it is damaged ({reason})") from error
    signatures = dict(inner.signatures)
    if _DEFAULT not in signatures and len(signatures) != 1:
        listed = ", ".join(sorted(signatures)) or "none"
        raise InputError(f"{path}: this SavedModel has no signature '{_DEFAULT}' (its signatures: {listed})")
    function = signatures.get(_DEFAULT, next(iter(signatures.values())))
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
    _refuse({node.op for node in nodes if _RESTORING.search(node.op)}, path)
    return inner, function


def _look_through(path: Path) -> None:
    """Refuses graphs that read or write files, or call Python."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel()
    try:
        found.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise InputError(f"{path}: this is not a SavedModel, or it is damaged") from error
    for graph in (item.graph_def for item in found.meta_graphs):
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        _refuse({node.op for node in nodes if _REACHING_OUT.search(node.op)}, path)


def _refuse(operators: set[str], path: Path) -> None:
    if operators:
        raise InputError(
            f"{path}: this SavedModel reads or writes files, or calls Python, when it runs"
            f" ({', '.join(sorted(operators))}); edgekit does not let it"
        )


def _specs(items: Iterable[tuple[str, Any]], path: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for name, item in items:
        if item.shape.rank is None:
            raise InputError(f"{path}: '{name}' has no shape at all in this SavedModel; export it with one")
        symbols = ["batch", *(f"{name}_dim{index}" for index in range(1, item.shape.rank))]
        dims = [symbol if dim is None else int(dim) for dim, symbol in zip(item.shape, symbols, strict=False)]
        specs.append(TensorSpec(name, tuple(dims), item.dtype.name))
    return tuple(specs)


def _module(saved: Any, function: Any, signature: Signature) -> Any:
    import tensorflow as tf

    ins, outs = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]

    class Served(tf.Module):  # type: ignore[misc]
        """One signature of the SavedModel."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = saved

        def __call__(self, *tensors: Any) -> list[Any]:
            found = function(**{name: tf.convert_to_tensor(item) for name, item in zip(ins, tensors, strict=True)})
            return [found[name] for name in outs]

    return Served()


SOURCE = SavedModel()
