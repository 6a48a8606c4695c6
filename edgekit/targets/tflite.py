"""TensorFlow Lite (LiteRT) flatbuffers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgekit.core.requirements import KERAS, LITERT, TENSORFLOW
from edgekit.core.source import LoadedSource
from edgekit.core.specs import ModelDescription, Signature
from edgekit.targets._base import Conversion, Converted, Target
from edgekit.targets._tflite_graph import describe, read_signature

BATCH = 1  # a device runs one sample; a symbolic batch costs shape arithmetic in the graph and keeps XNNPACK out


class TFLite(Target):
    """By TFLiteConverter from a Keras model, the batch fixed at one."""

    name = "tflite"
    title = "TensorFlow Lite (LiteRT)"
    suffixes = (".tflite",)
    runtime = "litert"
    routes = {"keras": ("float32", "float16", "dynamic", "int8", "int16x8")}
    requires = {"keras": (TENSORFLOW, KERAS)}
    reads_with = (LITERT,)

    def _convert(self, source: LoadedSource, job: Conversion) -> Converted:
        with tempfile.TemporaryDirectory(dir=job.folder) as saved_model:
            _save(source, saved_model)
            content: bytes = _converter(saved_model, source.signature, job).convert()
        path = job.folder / self.file_name
        path.write_bytes(content)
        signature = read_signature(path)
        layouts = {spec.name: spec.layout for spec in (*source.signature.inputs, *source.signature.outputs)}
        ordered = Signature(
            _like(source.signature.inputs, signature.inputs, layouts),
            _like(source.signature.outputs, signature.outputs, layouts),
        )
        return Converted(self.file_name, ordered, {"batch": BATCH, "converter": "TFLiteConverter"})

    def describe(self, path: Path) -> ModelDescription:
        return describe(path)


def _like(source: Any, found: Any, layouts: dict[str, str | None]) -> Any:
    """The file's tensors in the order of the source's, with the source's layout; strangers come last."""
    order = [spec.name for spec in source]
    ranked = sorted(found, key=lambda spec: order.index(spec.name) if spec.name in order else len(order))
    return tuple(
        type(spec)(spec.name, spec.shape, spec.dtype, layouts.get(spec.name), spec.quantization) for spec in ranked
    )


def _save(source: LoadedSource, folder: str) -> None:
    """A SavedModel whose one signature has the source's names, and whose variables the converter can freeze."""
    import keras
    import tensorflow as tf

    inputs, outputs = source.signature.inputs, source.signature.outputs

    def serve(**tensors: Any) -> dict[str, Any]:
        values = [tensors[spec.name] for spec in inputs]
        result = source.model(values[0] if len(values) == 1 else values, training=False)
        results = result if isinstance(result, (list, tuple)) else [result]
        return {spec.name: value for spec, value in zip(outputs, results, strict=True)}

    function = tf.function(serve, autograph=False)
    function.get_concrete_function(
        **{spec.name: tf.TensorSpec(spec.with_batch(BATCH).shape, spec.dtype, name=spec.name) for spec in inputs}
    )
    archive = keras.export.ExportArchive()
    archive.track(source.model)
    archive.add_endpoint("serving_default", function)
    archive.write_out(folder, verbose=False)


def _converter(saved_model: str, signature: Signature, job: Conversion) -> Any:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if job.precision == "float32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif job.precision in ("int8", "int16x8"):
        ops = tf.lite.OpsSet
        integer = {
            "int8": (ops.TFLITE_BUILTINS_INT8, tf.int8),
            "int16x8": (ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8, tf.int16),
        }
        op_set, io_type = integer[job.precision]
        converter.target_spec.supported_ops = [op_set]
        converter.inference_input_type = converter.inference_output_type = io_type
        converter.representative_dataset = lambda: _calibration(signature, job)
    return converter


def _calibration(signature: Signature, job: Conversion) -> Any:
    assert job.calibration is not None  # the base has made sure
    count = len(job.calibration[signature.inputs[0].name])
    for index in range(count):
        yield {spec.name: job.calibration[spec.name][index : index + 1] for spec in signature.inputs}


TARGET = TFLite()
