"""ONNX models, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import Build, LoadedModel, SourceKind, UserModel, reconcile_signature
from edgekit.core.environment.requirements import ONNX, ONNXRUNTIME
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.sources._onnx_file import load_model

_LARGEST = 2**31 - 2**20  # a protobuf message has less than 2 GB


class LoadedOnnx(LoadedModel):
    """A ModelProto with its weights, and a session that runs it."""

    kind = "onnx"

    def __init__(self, model: Any, signature: Signature) -> None:
        super().__init__(model, signature)
        self._session: Any = None

    def _run(self, inputs: list[Array]) -> list[Array]:
        if self._session is None:
            self._session = _session(self.model)
        feed = {spec.name: array for spec, array in zip(self.signature.inputs, inputs, strict=True)}
        return [np.asarray(output) for output in self._session.run(None, feed)]

    def parameters(self) -> dict[str, Array]:
        from onnx import numpy_helper

        return {item.name: numpy_helper.to_array(item) for item in self.model.graph.initializer}

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        """The graph with Transpose nodes between its inputs and outputs and the inside, which is renamed there."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        inner = {}
        for value, order in [*zip(_inputs(graph), inputs, strict=True), *zip(graph.output, outputs, strict=True)]:
            if order is not None:
                inner[value.name] = f"{value.name}_{'_'.join(map(str, order))}"
        for node in graph.node:
            node.input[:] = [inner.get(name, name) for name in node.input]
            node.output[:] = [inner.get(name, name) for name in node.output]
        before, after = [], []
        for value, order in zip(_inputs(graph), inputs, strict=True):
            if order is not None:
                before.append(onnx.helper.make_node("Transpose", [value.name], [inner[value.name]], perm=order))
                _reorder(value, [int(index) for index in np.argsort(order)])
        for value, order in zip(graph.output, outputs, strict=True):
            if order is not None:
                after.append(onnx.helper.make_node("Transpose", [inner[value.name]], [value.name], perm=order))
                _reorder(value, order)
        nodes = [*before, *graph.node, *after]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        return model


def _reorder(value: Any, order: Any) -> None:
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in value.type.tensor_type.shape.dim]
    del value.type.tensor_type.shape.dim[:]
    value.type.tensor_type.shape.dim.extend(dims[index] for index in order)


def _session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base of its own
        reason = str(error).partition("] : ")[2] or str(error)
        raise InputError(f"ONNX Runtime does not take this model ({reason.splitlines()[0][:200]})") from error


def _inputs(graph: Any) -> list[Any]:
    """The inputs without those that are weights, as old files list them."""
    constants = {item.name for item in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _spec(value: Any, path: Path) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise InputError(f"{path}: '{value.name}' is a sequence, map or optional; edgekit takes tensors")
    dims: list[Dim] = []
    for index, dim in enumerate(tensor.shape.dim):
        unnamed = "batch" if index == 0 else f"{value.name}_dim{index}"
        dims.append(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or unnamed)
    return TensorSpec(value.name, tuple(dims), str(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))))


class Onnx(SourceKind):
    """Channels first, as most exporters leave it."""

    name = "onnx"
    requires = (ONNX, ONNXRUNTIME)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    layout = "first"
    suffixes = (".onnx",)

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedOnnx:
        return LoadedOnnx(load_model(path), signature)

    def import_model(self, given: UserModel, folder: Path) -> tuple[str, Signature]:
        import onnx

        assert given.path is not None  # an ONNX model is a file
        model = load_model(given.path)
        large = sum(len(item.raw_data) for item in model.graph.initializer) > _LARGEST
        onnx.save(
            model, folder / "model.onnx", save_as_external_data=large, location="model.weights" if large else None
        )
        found = Signature(
            tuple(_spec(value, given.path) for value in _inputs(model.graph)),
            tuple(_spec(value, given.path) for value in model.graph.output),
        )
        if not found.inputs:
            raise InputError(f"{given.path}: this model has no inputs")
        return "model.onnx", reconcile_signature(found, given, str(given.path))


SOURCE = Onnx()
