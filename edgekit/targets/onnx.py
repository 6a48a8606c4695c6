"""ONNX: by tf2onnx from Keras, by torch.onnx (dynamo) from PyTorch; precisions by ONNX Runtime's tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.core.metrics import Array
from edgekit.core.requirements import KERAS, ONNX, ONNXRUNTIME, ONNXSCRIPT, TENSORFLOW, TF2ONNX, TORCH
from edgekit.core.source import LoadedSource
from edgekit.core.specs import ModelDescription, Signature
from edgekit.targets._base import Conversion, Converted, Target
from edgekit.targets._onnx_graph import canonical_names, describe, parse, prune_opsets, read_signature, tidy

OPSET = {"keras": 18, "torch": 20}  # tf2onnx writes at most 18; 20 is what the dynamo exporter was written for
BATCH = "batch"
_PRECISIONS = ("float32", "float16", "dynamic", "int8")


class Onnx(Target):
    """The batch stays symbolic; weights stay inside the file; names are the source's."""

    name = "onnx"
    title = "ONNX"
    suffixes = (".onnx",)
    runtime = "onnxruntime"
    routes = {"keras": _PRECISIONS, "torch": _PRECISIONS}
    requires = {
        "keras": (ONNX, ONNXRUNTIME, TF2ONNX, TENSORFLOW, KERAS),
        "torch": (ONNX, ONNXRUNTIME, ONNXSCRIPT, TORCH),
    }
    reads_with = (ONNX,)
    calibrated = frozenset({"int8"})

    def _convert(self, source: LoadedSource, job: Conversion) -> Converted:
        model = _from_keras(source) if source.kind == "keras" else _from_torch(source)
        tidy(model, source.signature, BATCH)
        path = job.folder / self.file_name
        options: dict[str, Any] = {"opset": OPSET[source.kind]}
        if job.precision == "float16":
            model = _float16(model)
        if job.precision in ("float32", "float16"):
            path.write_bytes(model.SerializeToString(deterministic=True))
        else:
            _quantize(model, path, job)
            model = parse(path)
            prune_opsets(model)
            path.write_bytes(model.SerializeToString(deterministic=True))
            options |= {"weights": "int8 per channel"} | ({"format": "QDQ"} if job.precision == "int8" else {})
        return Converted(self.file_name, _with_layouts(read_signature(path), source.signature), options)

    def describe(self, path: Path) -> ModelDescription:
        return describe(path)


def _with_layouts(signature: Signature, source: Signature) -> Signature:
    layouts = {spec.name: spec.layout for spec in (*source.inputs, *source.outputs)}
    sides = (
        tuple(type(spec)(spec.name, spec.shape, spec.dtype, layouts.get(spec.name), spec.quantization) for spec in side)
        for side in (signature.inputs, signature.outputs)
    )
    return Signature(*sides)


def _from_keras(source: LoadedSource) -> Any:
    import tensorflow as tf
    import tf2onnx

    inputs, outputs = source.signature.inputs, source.signature.outputs

    def serve(*tensors: Any) -> dict[str, Any]:
        result = source.model(tensors[0] if len(tensors) == 1 else list(tensors), training=False)
        results = result if isinstance(result, (list, tuple)) else [result]
        return {spec.name: value for spec, value in zip(outputs, results, strict=True)}

    specs = [tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name=spec.name) for spec in inputs]
    function = tf.function(serve, autograph=False, input_signature=specs)
    model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET["keras"])
    canonical_names(model)
    return model


def _from_torch(source: LoadedSource) -> Any:
    import torch

    signature = source.signature
    # Two samples: a batch of one would be taken for a constant.
    example = tuple(torch.zeros([2, *map(int, spec.shape[1:])]) for spec in signature.inputs)
    program = torch.onnx.export(
        source.model,
        example,
        dynamo=True,
        external_data=False,
        opset_version=OPSET["torch"],
        input_names=[spec.name for spec in signature.inputs],
        output_names=[spec.name for spec in signature.outputs],
        dynamic_shapes=tuple({0: torch.export.Dim(BATCH)} for _ in signature.inputs),
        verbose=False,
    )
    assert program is not None  # it is only where it writes a file itself
    return program.model_proto


def _float16(model: Any) -> Any:
    """Weights and arithmetic in half precision, inputs and outputs in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort(is_deterministic=True)  # the converter appends its casts at the end
    return converted.model


class _Reader:
    """Calibration samples one by one, as ONNX Runtime asks for them."""

    def __init__(self, inputs: Mapping[str, Array]) -> None:
        count = len(next(iter(inputs.values())))
        self._samples: Iterator[dict[str, Array]] = (
            {name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)


def _quantize(model: Any, path: Path, job: Conversion) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        raw, prepared = f"{folder}/raw.onnx", f"{folder}/prepared.onnx"
        onnx.save(model, raw)
        quant_pre_process(raw, prepared)
        if job.precision == "dynamic":
            quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QInt8)
        else:
            assert job.calibration is not None  # the base has made sure
            quantize_static(
                prepared,
                path,
                _Reader(job.calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )


TARGET = Onnx()
