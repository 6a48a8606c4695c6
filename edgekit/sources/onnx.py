"""The source kind of ONNX models, executed by ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import Build, LoadedModel, SourceKind, UserModel, fixed_inputs, reconcile_signature
from edgekit.core.environment.requirements import ONNX, ONNXRUNTIME, TORCH
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.channel_scales import ChannelGroups
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.fixed_inputs import without_fixed
from edgekit.core.values.preprocessing import Preprocessing
from edgekit.core.values.specs import Dim, Signature, TensorSpec
from edgekit.sources._onnx_file import load_model
from edgekit.sources._onnx_fixed import with_constants
from edgekit.sources._onnx_precision import in_float32
from edgekit.sources._preprocess_onnx import preprocessed
from edgekit.sources._regular_module import in_float32 as float32_specs

# The most bytes of weights that stay inside the file: protobuf messages are limited to 2 GiB, and one MiB of that is
# left for the graph. Larger weights go to a file beside the model.
_MAX_INLINE_BYTES = 2**31 - 2**20


# Samples that ranges of channels are measured with.
_RANGE_SAMPLES = 64

_log = logging.getLogger(__name__)


class LoadedOnnx(LoadedModel):
    """An `onnx.ModelProto` with its weights in memory, executed by a session that is created on first use."""

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

        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    def _channel_ranges(self, inputs: Mapping[str, Array]) -> tuple[ChannelGroups, Mapping[str, Array]] | None:
        from edgekit.sources._onnx_channels import channel_groups, channel_range, with_outputs

        names = [spec.name for spec in self.signature.inputs]
        count = min(_RANGE_SAMPLES, batching.n_samples(self.signature, inputs))
        used = batching.select_samples(self.signature, inputs, 0, count)
        calls = [dict(zip(names, call, strict=True)) for call in batching.iter_batches(self.signature, used)]
        everything = with_outputs(self.model)
        try:
            results = _session(everything).run(None, calls[0])
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base class
            _log.info("channels cannot be scaled, since inner tensors cannot be read: %s", error)
            return None
        computed = dict(zip((value.name for value in everything.graph.output), results, strict=True))
        shapes = {name: array.shape for name, array in {**calls[0], **computed}.items() if hasattr(array, "shape")}
        groups = channel_groups(self.model, shapes)
        axes = {name: groups.axis(name) for tensors in groups.free.values() for name in tensors} if groups else {}
        if groups is None or not axes:
            return None
        session = _session(with_outputs(self.model, list(axes)))
        ranges: dict[str, Array] = {}
        for call in calls:
            for (name, axis), array in zip(axes.items(), session.run(None, call), strict=True):
                largest = channel_range(array, axis)
                ranges[name] = np.maximum(ranges[name], largest) if name in ranges else largest
        return groups, ranges

    def _norm_gradient(self, calls: Sequence[list[Array]]) -> tuple[float, int, list[list[Array]]]:
        from edgekit.sources._torch_norms import norm_gradient
        from edgekit.sources.bridges._onnx.graph import UnsupportedOperators, build

        signature = self.signature
        try:
            module = self.cached(
                "module with norms",
                lambda: build(
                    self.model,
                    [spec.name for spec in signature.inputs],
                    [spec.name for spec in signature.outputs],
                    fold=False,
                ),
            )
        except UnsupportedOperators as error:
            raise InputError(
                f"samples cannot be synthesized from this model, since PyTorch does not compute"
                f" {', '.join(error.nodes)}; pass real inputs",
                parameters=("sample", "calibration"),
            ) from error
        return norm_gradient(module, calls)

    def _with_parameters(self, values: Mapping[str, Array]) -> LoadedOnnx:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
        return LoadedOnnx(model, self.signature)

    def _with_steps(self, steps: Sequence[Preprocessing | None]) -> Any:
        return preprocessed(self.model, [item for item in steps if item is not None])

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        """Return the model with Transpose nodes at its inputs and outputs; the inner tensors there are renamed."""
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
        del graph.node[:], graph.value_info[:]  # value_info may describe a renamed tensor by its old name
        graph.node.extend(nodes)
        return model


def _reorder(value: Any, order: Any) -> None:
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in value.type.tensor_type.shape.dim]
    del value.type.tensor_type.shape.dim[:]
    value.type.tensor_type.shape.dim.extend(dims[index] for index in order)


def _session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings about unused initializers would reach the user's stderr
    # Kernels for uint8 by int8 saturate on x86 without AVX-VNNI (docs/upstream.md); the reference is exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        reason = str(error).partition("] : ")[2] or str(error)  # after `[ONNXRuntimeError] : 1 : FAIL : `
        raise InputError(f"ONNX Runtime rejects this model ({reason.splitlines()[0][:200]})") from error


def _inputs(graph: Any) -> list[Any]:
    """Return the inputs that are not weights; before IR version 4 every initializer had to be an input too."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _spec(value: Any, path: Path) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise InputError(f"{path}: '{value.name}' is a sequence, map or optional; edgekit supports tensors only")
    dims: list[Dim] = []
    for index, dim in enumerate(tensor.shape.dim):
        unnamed = "batch" if index == 0 else f"{value.name}_dim{index}"
        dims.append(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or unnamed)
    return TensorSpec(value.name, tuple(dims), str(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))))


class OnnxSource(SourceKind):
    """The kind of ONNX models; channels first, as in ONNX's own image operators."""

    name = "onnx"
    requires = (ONNX, ONNXRUNTIME)
    synthesis_requires = (TORCH,)  # ONNX Runtime's inference computes no gradients
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    layout = "first"
    suffixes = (".onnx",)
    writes_fixed = True

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedOnnx:
        return LoadedOnnx(load_model(path), signature)

    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        import onnx

        path = user_model.path
        assert path is not None  # an ONNX model is a file
        model = load_model(path)
        if not user_model.as_stored:
            model, user_model = _in_float32(model, user_model)
        described = Signature(
            tuple(_spec(value, path) for value in _inputs(model.graph)),
            tuple(_spec(value, path) for value in model.graph.output),
        )
        if not described.inputs:
            raise InputError(f"{path}: this model has no inputs")
        signature = reconcile_signature(described, user_model, str(path))
        fixed = fixed_inputs(user_model, signature)
        if fixed:
            signature = without_fixed(signature, fixed)
            model = with_constants(model, fixed, _batched(signature))
        large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _MAX_INLINE_BYTES
        onnx.save(
            model, folder / "model.onnx", save_as_external_data=large, location="model.weights" if large else None
        )
        return "model.onnx", signature


def _in_float32(model: Any, user_model: UserModel) -> tuple[Any, UserModel]:
    """Return the model in float32, and what the user declared in the same types; a note says so."""
    rebuilt, types = in_float32(model)
    if not types:
        return model, user_model
    try:
        _session(rebuilt)
    except InputError as error:
        _log.info("the model stays in %s: %s", " and ".join(types), error)
        return model, user_model
    user_model.notes.append(f"the network computes in {' and '.join(types)}: it was rebuilt in float32")
    return rebuilt, replace(user_model, inputs=float32_specs(user_model.inputs))


def _batched(signature: Signature) -> str | None:
    """Return the first input with a symbolic first dimension."""
    return next((spec.name for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)), None)


SOURCE = OnnxSource()
