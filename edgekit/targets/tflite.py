"""TensorFlow Lite (LiteRT) flatbuffers: by TFLiteConverter from Keras, by litert-torch from PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, QuantizableLayer, Target
from edgekit.core.environment.requirements import KERAS, LITERT, LITERT_TORCH, QUANTIZER, TENSORFLOW, TORCH, require
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.records.operator_costs import Operator
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, Signature, TensorSpec
from edgekit.targets._tflite import from_keras, from_torch, mixed_precision, quantizer, truncate
from edgekit.targets._tflite.graph import describe, inline_buffers, read_signature, tensor_lifetimes

_PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")


class TFLite(Target):
    """The batch is fixed at one: a device runs one sample, and a symbolic batch costs shape arithmetic in the graph."""

    name = "tflite"
    title = "TensorFlow Lite (LiteRT)"
    suffixes = (".tflite",)
    runtime = "litert"
    routes = {"keras": _PRECISIONS, "torch": _PRECISIONS, "saved-model": _PRECISIONS}
    requires = {
        "keras": (TENSORFLOW, KERAS),
        "torch": (TORCH, LITERT_TORCH, QUANTIZER),
        "saved-model": (TENSORFLOW, KERAS),
    }
    reads_with = (LITERT,)
    transposes = ("TRANSPOSE",)
    selective = mixed_precision.PRECISIONS
    calibrations = mixed_precision.CALIBRATIONS

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        path = job.folder / self.file_name
        if source.kind != "torch" and job.precision in from_keras.PRECISIONS:
            path.write_bytes(from_keras.convert(source, job))
            options = {"converter": from_keras.CONVERTER}
        else:
            require((QUANTIZER,), f"{source.kind} -> tflite:{job.precision}")
            module = from_torch if source.kind == "torch" else from_keras
            quantizer.quantize(_float(module, source, job), job, path)
            options = {"converter": module.CONVERTER, "quantizer": quantizer.RECIPES[job.precision]}
        path.write_bytes(inline_buffers(path.read_bytes()))
        return ConversionResult(self.file_name, _in_order(read_signature(path), source.signature), options)

    def float_base(self, source: LoadedSource, job: ConversionRequest) -> Path:
        module = from_torch if source.kind == "torch" else from_keras
        path = job.folder / self.file_name
        path.write_bytes(_float(module, source, job))
        return path

    def layers(self, base: Path) -> tuple[QuantizableLayer, ...]:
        require((QUANTIZER,), "keeping single layers in float")
        return mixed_precision.layers(base)

    def select(self, base: Path, signature: Signature, job: ConversionRequest) -> ConversionResult:
        require((QUANTIZER,), "keeping single layers in float")
        assert job.recipe is not None  # there is nothing to select without one
        path = job.folder / self.file_name
        mixed_precision.select(base, job.recipe, job, path)
        path.write_bytes(inline_buffers(path.read_bytes()))
        options = {"quantizer": quantizer.RECIPES[job.precision]}
        return ConversionResult(self.file_name, _in_order(read_signature(path), signature), options)

    def describe(self, path: Path) -> ModelDescription:
        return describe(path)

    def operators(self, path: Path) -> tuple[Operator, ...]:
        return truncate.operators(path)

    def truncate_after(self, path: Path, after: Sequence[int], folder: Path) -> tuple[Path, ...]:
        return truncate.truncate_after(path, after, folder)

    def tensor_lifetimes(self, path: Path) -> tuple[TensorLifetime, ...]:
        return tensor_lifetimes(path)


def _float(module: Any, source: LoadedSource, job: ConversionRequest) -> bytes:
    """The float32 flatbuffer, with which the quantizer begins."""
    content: bytes = source.cached("tflite float32", lambda: module.convert_float(source, job.folder))
    return content


def _in_order(found: Signature, source: Signature) -> Signature:
    """The file's tensors in the order of the source's, with the source's layouts."""
    return Signature(_like(source.inputs, found.inputs), _like(source.outputs, found.outputs))


def _like(source: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    layouts = {spec.name: spec.layout for spec in source}
    order = [spec.name for spec in source]
    ranked = sorted(found, key=lambda spec: order.index(spec.name) if spec.name in order else len(order))
    return tuple(
        TensorSpec(spec.name, spec.shape, spec.dtype, layouts.get(spec.name), spec.quantization) for spec in ranked
    )


TARGET = TFLite()
