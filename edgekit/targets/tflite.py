"""The TensorFlow Lite (LiteRT) target: TFLiteConverter for Keras, litert-torch for PyTorch, ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, QuantizableLayer, SupportedForms, Target
from edgekit.core.environment.requirements import KERAS, LITERT, LITERT_TORCH, QUANTIZER, TENSORFLOW, TORCH, require
from edgekit.core.numerics.exact_values import NOTE as EXACT_VALUES_NOTE
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.records.operator_costs import Operator
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, Signature, TensorSpec
from edgekit.targets._tflite import (
    exact_values,
    from_keras,
    from_tflite,
    from_torch,
    mixed_precision,
    quantizer,
    truncate,
)
from edgekit.targets._tflite.io_types import change_io_types
from edgekit.tflite_files.graph import (
    describe,
    inline_buffers,
    read_signature,
    restore_outputs,
    tensor_lifetimes,
)

# LiteRT converts between these types and those of the body, in front of it and behind it.
_INT8_TYPES, _INT16_TYPES = ("int8", "uint8", "float32"), ("int16", "float32")
_PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
# Source kinds whose quantized files TFLiteConverter makes, and what makes the float file of each kind.
_BY_TFLITE_CONVERTER = ("keras", "saved-model")
_FLOAT_CONVERTERS = {"keras": from_keras, "saved-model": from_keras, "torch": from_torch, "tflite": from_tflite}


class TFLiteTarget(Target):
    """TFLite flatbuffers with a batch of one."""

    # `symbolic` stays False: TFLiteConverter (TensorFlow 2.21) writes shape arithmetic into the graph for a symbolic
    # batch, and a device runs one sample at a time.

    name = "tflite"
    title = "TensorFlow Lite (LiteRT)"
    suffixes = (".tflite",)
    runtime = "litert"
    routes = {"keras": _PRECISIONS, "torch": _PRECISIONS, "saved-model": _PRECISIONS, "tflite": _PRECISIONS}
    requires = {
        "keras": (TENSORFLOW, KERAS),
        "torch": (TORCH, LITERT_TORCH, QUANTIZER),
        "saved-model": (TENSORFLOW, KERAS),
        "tflite": (LITERT, QUANTIZER),
    }
    reads_with = (LITERT,)
    transposes = ("TRANSPOSE",)
    selective = mixed_precision.PRECISIONS
    calibrations = mixed_precision.CALIBRATIONS
    forms = {
        "dynamic": SupportedForms(per_tensor=True),
        "int8": SupportedForms(_INT8_TYPES, _INT8_TYPES, per_tensor=True, symmetric=True, ranges=True),
        # int16 activations are symmetric in any case.
        "int16x8": SupportedForms(_INT16_TYPES, _INT16_TYPES, per_tensor=True, symmetric=True, ranges=True),
        "int4": SupportedForms(per_tensor=True),
    }

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        path = job.folder / self.file_name
        # TFLiteConverter quantizes by itself, all but int4; files of litert-torch are float and need the quantizer.
        content = None
        # It has no options for ranges and symmetric activations, and one for weights per tensor that is experimental.
        plain = not (job.form.per_tensor or job.form.symmetric_activations or _ranges_to_set(source, job))
        if source.kind in _BY_TFLITE_CONVERTER and job.precision in from_keras.PRECISIONS and plain:
            content = from_keras.convert(source, job)
            # TFLiteConverter keeps no operator in float, so comparisons of exact values are ai-edge-quantizer's.
            if job.precision in from_keras.INTEGER and exact_values.find(content)[1] and QUANTIZER.installed():
                content = None
        notes: tuple[str, ...] = ()
        if content is not None:
            path.write_bytes(content)
            options = {"converter": from_keras.CONVERTER}
        else:
            require((QUANTIZER,), f"{source.kind} -> tflite:{job.precision}")
            module = _FLOAT_CONVERTERS[source.kind]
            if quantizer.quantize(_convert_float(module, source, job), job, path):
                notes = (EXACT_VALUES_NOTE,)
            options = {"converter": module.CONVERTER, "quantizer": quantizer.RECIPES[job.precision]}
        _finish(path, job)
        return ConversionResult(self.file_name, _reorder(read_signature(path), source.signature), options, notes)

    def float_base(self, source: LoadedSource, job: ConversionRequest) -> Path:
        module = _FLOAT_CONVERTERS[source.kind]
        path = job.folder / self.file_name
        path.write_bytes(_convert_float(module, source, job))
        return path

    def layers(self, base: Path) -> tuple[QuantizableLayer, ...]:
        require((QUANTIZER,), "keeping single layers in float")
        return mixed_precision.layers(base)

    def select(self, base: Path, signature: Signature, job: ConversionRequest) -> ConversionResult:
        require((QUANTIZER,), "keeping single layers in float")
        assert job.recipe is not None  # callers select by a recipe only
        path = job.folder / self.file_name
        mixed_precision.select(base, job.recipe, job, path)
        _finish(path, job)
        options = {"quantizer": quantizer.RECIPES[job.precision]}
        return ConversionResult(self.file_name, _reorder(read_signature(path), signature), options)

    def describe(self, path: Path) -> ModelDescription:
        return describe(path)

    def operators(self, path: Path) -> tuple[Operator, ...]:
        return truncate.operators(path)

    def truncate_after(self, path: Path, after: Sequence[int], folder: Path) -> tuple[Path, ...]:
        return truncate.truncate_after(path, after, folder)

    def tensor_lifetimes(self, path: Path) -> tuple[TensorLifetime, ...]:
        return tensor_lifetimes(path)


def _ranges_to_set(source: LoadedSource, job: ConversionRequest) -> bool:
    """Return whether the form sets a range that TFLiteConverter would not find in the calibration samples itself."""
    inputs = {spec.name for spec in source.signature.inputs}
    samples = job.calibration or {}
    return any(
        name not in inputs or name not in samples or (samples[name].min(), samples[name].max()) != bounds
        for name, bounds in job.form.ranges.items()
    )


def _finish(path: Path, job: ConversionRequest) -> None:
    """Put all weights into the flatbuffer, and give its inputs and outputs their places and types."""
    # TensorFlow Lite Micro does not support weights outside of the flatbuffer, where ai-edge-quantizer 0.10 puts
    # larger ones.
    path.write_bytes(change_io_types(restore_outputs(inline_buffers(path.read_bytes())), job.form))


def _convert_float(module: Any, source: LoadedSource, job: ConversionRequest) -> bytes:
    """Return the float32 flatbuffer, which all variants of a source share."""
    content: bytes = source.cached("tflite float32", lambda: module.convert_float(source, job.folder))
    return content


def _reorder(signature: Signature, source: Signature) -> Signature:
    """Return the file's tensors in the order of the source's, with the source's layouts."""
    # TensorFlow sorts the keys of the dict that a function returns, and flatbuffers do not record layouts.
    return Signature(_reorder_specs(signature.inputs, source.inputs), _reorder_specs(signature.outputs, source.outputs))


def _reorder_specs(specs: Sequence[TensorSpec], source: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    layouts = {spec.name: spec.layout for spec in source}
    order = [spec.name for spec in source]
    ordered = sorted(specs, key=lambda spec: order.index(spec.name) if spec.name in order else len(order))
    return tuple(
        TensorSpec(spec.name, spec.shape, spec.dtype, layouts.get(spec.name), spec.quantization) for spec in ordered
    )


TARGET = TFLiteTarget()
