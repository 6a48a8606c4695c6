"""The ONNX target: tf2onnx for Keras, torch.onnx for PyTorch, a translation of .tflite files, and ONNX Runtime."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, QuantizableLayer, SupportedForms, Target
from edgekit.core.environment.requirements import (
    KERAS,
    LITERT,
    ONNX,
    ONNXRUNTIME,
    ONNXSCRIPT,
    ONNXSLIM,
    TENSORFLOW,
    TF2ONNX,
    TORCH,
)
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.numerics.exact_values import NOTE as EXACT_VALUES_NOTE
from edgekit.core.records.operator_costs import Operator
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, Signature
from edgekit.core.values.tensor_aliases import aliases
from edgekit.targets._onnx import block_weights, mixed_precision, truncate
from edgekit.targets._onnx.checks import check, reject_unknown_operators
from edgekit.targets._onnx.graph import (
    canonical_names,
    describe,
    expose,
    name_ends,
    parse,
    prune_opsets,
    read_signature,
    write_constant_outputs,
)
from edgekit.targets._onnx.io_types import IoTypes
from edgekit.targets._onnx.simplify import at_opset, opset, set_ir_version, slim
from edgekit.targets._onnx.torch_operators import corrected_translations
from edgekit.tflite_files.to_onnx.translate import to_onnx

# The default operator set by source kind: 18 is the newest that tf2onnx 1.17 writes, 20 the default of torch 2.13's
# exporter. onnx's version converter reaches the others.
OPSET = {"keras": 18, "saved-model": 18, "torch": 20}

# Begins the names that inputs and outputs have during an export.
_END = "edgekit_end_"

_INT8_TYPES = ("float32", "int8", "uint8")
_PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
# The oldest operator set whose QuantizeLinear has 16-bit types.
_OPSET_OF_INT16 = 21


class OnnxTarget(Target):
    """ONNX files with a symbolic batch, weights inside the file, and the source's names of inputs and outputs."""

    name = "onnx"
    title = "ONNX"
    suffixes = (".onnx",)
    runtime = "onnxruntime"
    routes = {
        "keras": _PRECISIONS,
        "torch": _PRECISIONS,
        "saved-model": _PRECISIONS,
        "onnx": _PRECISIONS,
        "tflite": _PRECISIONS,
    }
    requires = {
        "saved-model": (ONNX, ONNXRUNTIME, ONNXSLIM, TF2ONNX, TENSORFLOW),
        "onnx": (ONNX, ONNXRUNTIME, ONNXSLIM),
        "tflite": (ONNX, ONNXRUNTIME, ONNXSLIM, LITERT),
        "keras": (ONNX, ONNXRUNTIME, ONNXSLIM, TF2ONNX, TENSORFLOW, KERAS),
        "torch": (ONNX, ONNXRUNTIME, ONNXSLIM, ONNXSCRIPT, TORCH),
    }
    reads_with = (ONNX,)
    calibrated = frozenset({"int8", "int16x8"})
    # int16x8 is for NPUs: ONNX Runtime's CPU kernels compute it in float32. Few networks of devices have most of their
    # weights in matrices, which int4 is for.
    on_request = frozenset({"int16x8", "int4"})
    symbolic = True
    options = ("opset", "ir_version")
    transposes = ("Transpose",)
    selective = mixed_precision.PRECISIONS
    calibrations = mixed_precision.CALIBRATIONS
    forms = {
        "dynamic": SupportedForms(per_tensor=True),
        "int8": SupportedForms(_INT8_TYPES, _INT8_TYPES, per_tensor=True, symmetric=True, ranges=True),
        "int16x8": SupportedForms(per_tensor=True, symmetric=True, ranges=True),
    }

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        if job.precision == "int16x8" and job.options.get("opset", _OPSET_OF_INT16) < _OPSET_OF_INT16:
            # ONNX Runtime 1.32's quantizer would raise it silently.
            raise InputError(
                f"onnx:int16x8 needs opset {_OPSET_OF_INT16} or newer, whose QuantizeLinear has 16-bit types (got"
                f" {job.options['opset']})",
                parameters=("opset",),
            )
        model = self._export(source, job)
        if job.precision == "float16":
            model = _to_float16(model)
        if job.precision in ("float32", "float16"):
            return self._write(model, source.signature, job, {})
        if job.precision == "int4":
            notes = block_weights.quantize(model)
            options = {"weights": f"int4 in blocks of {block_weights.BLOCK}"}
            return replace(self._write(model, source.signature, job, options), notes=notes)
        if job.precision == "int16x8":
            model = at_opset(model, max(opset(model), _OPSET_OF_INT16))
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            return self._quantize(mixed_precision.prepare(model, Path(folder)), source.signature, job)

    def _export(self, source: LoadedSource, job: ConversionRequest) -> Any:
        """Return the simplified float32 model at the operator set of the request."""
        import onnx

        opset_version = job.options.get("opset")

        def export() -> bytes:
            model = _EXPORTERS[source.kind](source, opset_version)
            reject_unknown_operators(model)
            write_constant_outputs(model)
            # Exporters leave shape arithmetic behind, which is constant where shapes are fixed.
            content: bytes = slim(at_opset(model, opset_version), source.signature).SerializeToString()
            return content

        # All precisions start from this model; bytes are cached, since callers edit the model that they get.
        return onnx.ModelProto.FromString(source.cached(f"onnx, opset {opset_version}", export))

    def _quantize(self, prepared: Path, signature: Signature, job: ConversionRequest) -> ConversionResult:
        path = job.folder / self.file_name
        notes = (EXACT_VALUES_NOTE,) if mixed_precision.quantize(prepared, signature, job, path) else ()
        model = parse(path)
        prune_opsets(model)
        ends = IoTypes(
            model,
            lambda name: mixed_precision.range_of_end(name, prepared, signature, job),
            symmetric=job.form.symmetric_activations,
        )
        ends.change(job.form.inference_input_type, job.form.inference_output_type)
        options = {"weights": "int8 per tensor" if job.form.per_tensor else "int8 per channel"} | (
            {"format": "QDQ"} if job.precision in self.calibrated else {}
        )
        return replace(self._write(model, signature, job, options), notes=notes)

    def _write(
        self, model: Any, signature: Signature, job: ConversionRequest, precision_options: Mapping[str, Any]
    ) -> ConversionResult:
        path = job.folder / self.file_name
        options = {"opset": opset(model), **precision_options}
        if "ir_version" in job.options:
            set_ir_version(model, job.options["ir_version"])
        options["ir_version"] = model.ir_version
        content = model.SerializeToString(deterministic=True)
        check(content)
        path.write_bytes(content)
        return ConversionResult(self.file_name, _with_layouts(read_signature(path), signature), options)

    def float_base(self, source: LoadedSource, job: ConversionRequest) -> Path:
        prepared = mixed_precision.prepare(self._export(source, job), job.folder)
        mixed_precision.name_nodes(prepared)
        return prepared

    def layers(self, base: Path) -> tuple[QuantizableLayer, ...]:
        return mixed_precision.layers(base)

    def select(self, base: Path, signature: Signature, job: ConversionRequest) -> ConversionResult:
        return self._quantize(base, signature, job)

    def describe(self, path: Path) -> ModelDescription:
        return describe(path)

    def operators(self, path: Path) -> tuple[Operator, ...]:
        return truncate.operators(path)

    def truncate_after(self, path: Path, after: Sequence[int], folder: Path) -> tuple[Path, ...]:
        return truncate.truncate_after(path, after, folder)

    def expose_intermediates(self, path: Path, folder: Path) -> Path:
        model = expose(parse(path))
        exposed = folder / "exposed.onnx"
        exposed.write_bytes(model.SerializeToString())
        return exposed


def _with_layouts(signature: Signature, source: Signature) -> Signature:
    """Return the file's signature with the layouts of the source, which ONNX files do not record."""
    layouts = {spec.name: spec.layout for spec in (*source.inputs, *source.outputs)}
    sides = (
        tuple(type(spec)(spec.name, spec.shape, spec.dtype, layouts.get(spec.name), spec.quantization) for spec in side)
        for side in (signature.inputs, signature.outputs)
    )
    return Signature(*sides)


def _from_tensorflow(source: LoadedSource, opset_version: int | None) -> Any:
    import tensorflow as tf
    import tf2onnx

    signature = source.signature
    names = aliases((*signature.inputs, *signature.outputs))  # one name space for both sides
    inputs, outputs = list(names)[: len(signature.inputs)], list(names)[len(signature.inputs) :]

    def serve(*tensors: Any) -> dict[str, Any]:
        # Identities: an output may be an input, or two of them the same tensor, and each needs a name of its own.
        return {alias: tf.identity(value) for alias, value in zip(outputs, source.call(*tensors), strict=True)}

    specs = [
        tf.TensorSpec([dim if isinstance(dim, int) else None for dim in spec.shape], spec.dtype, name=alias)
        for alias, spec in zip(inputs, signature.inputs, strict=True)
    ]
    function = tf.function(serve, autograph=False, input_signature=specs)
    limit = OPSET[source.kind]
    model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=min(opset_version or limit, limit))
    # Names of TensorFlow have fewer characters than those of ONNX: tensors get their real names after the conversion.
    name_ends(model, names)
    canonical_names(model)
    return model


def _from_torch(source: LoadedSource, opset_version: int | None) -> Any:
    import torch

    signature = source.signature
    dims = {symbol: torch.export.Dim(re.sub(r"\W", "_", symbol)) for symbol in signature.symbols}
    shapes = tuple(
        {index: dims[dim] for index, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in signature.inputs
    )
    examples = tuple(map(torch.from_numpy, source.examples(2)))  # torch.export specializes sizes 0 and 1
    model = source.model
    if any(getattr(module, "proj_size", 0) for module in model.modules()):
        # ONNX's LSTM has no projection, and torch.onnx (2.13) writes one without it, which no runtime accepts.
        model = torch.export.export(model, examples, dynamic_shapes=shapes).run_decompositions()
    names = {f"{_END}{index}": spec.name for index, spec in enumerate((*signature.inputs, *signature.outputs))}

    translations = corrected_translations()

    def export(exported: Any, **shapes: Any) -> Any:
        return torch.onnx.export(
            exported,
            examples,
            dynamo=True,
            external_data=False,
            opset_version=opset_version or OPSET["torch"],
            input_names=list(names)[: len(signature.inputs)],
            output_names=list(names)[len(signature.inputs) :],
            verbose=False,
            custom_translation_table=translations,
            **shapes,
        )

    try:
        program = export(model, dynamic_shapes=shapes)
    except Exception:
        if not {*signature.symbols} - {signature.batch}:
            raise
        # Graphs that are right for most sizes only, such as even ones, are refused with named dimensions.
        anything = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in shapes)
        program = export(
            torch.export.export(
                model, examples, dynamic_shapes=anything, prefer_deferred_runtime_asserts_over_guards=True
            )
        )
    assert program is not None  # None is returned only if a file name is passed
    model = program.model_proto
    name_ends(model, names)
    _check_symbols(model, signature)
    return model


def _check_symbols(model: Any, signature: Signature) -> None:
    """Raise StepFailed if an exporter took a symbolic dimension for a number, or two of them for one."""
    values = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    names: dict[str, set[str]] = {}
    for spec in signature.inputs:
        for dim, stored in zip(spec.shape, values.get(spec.name, ()), strict=False):
            if isinstance(dim, str):
                names.setdefault(dim, set()).add(stored.dim_param)
    stored_names = [name for group in names.values() for name in group]
    if "" in stored_names or len({*stored_names}) < len(names):
        raise StepFailed(
            f"torch.onnx exports this network for one size only, not for every {', '.join(names)}; fix the size"
        )


def _from_onnx(source: LoadedSource, opset_version: int | None) -> Any:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(source.model)  # the source is also the reference of validation
    return model


def _from_tflite(source: LoadedSource, opset_version: int | None) -> Any:
    return to_onnx(source.model, source.signature)


_EXPORTERS = {
    "keras": _from_tensorflow,
    "saved-model": _from_tensorflow,
    "torch": _from_torch,
    "onnx": _from_onnx,
    "tflite": _from_tflite,
}


def _to_float16(model: Any) -> Any:
    """Return the model with weights and arithmetic in float16, inputs and outputs in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    # ONNX Runtime 1.32 appends its casts behind the nodes that read them, which the ONNX checker rejects.
    converted.topological_sort(is_deterministic=True)
    return converted.model


TARGET = OnnxTarget()
