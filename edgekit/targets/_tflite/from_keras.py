"""Keras and SavedModels to TFLite by TFLiteConverter."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import Signature

CONVERTER = "TFLiteConverter"
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
INTEGER = ("int8", "int16x8")
_CRASHES = (2, 21)
"""The last TensorFlow whose calibration was seen to end in SIGSEGV at the loop of a recurrent layer."""


def convert(source: LoadedSource, job: ConversionRequest) -> bytes:
    """The flatbuffer at the job's precision. Raises NotImplementedError where the converter is known to crash."""
    if job.precision in INTEGER:
        _refuse_loops(source)
    saved_model = source.cached("SavedModel", lambda: _saved(source))
    content: bytes = _converter(saved_model.name, source.signature, job).convert()
    return content


def convert_float(source: LoadedSource, folder: Path) -> bytes:
    """The float32 flatbuffer, for the quantizer."""
    return convert(source, ConversionRequest("float32", folder))


def _refuse_loops(source: LoadedSource) -> None:
    """Another route is taken at once, and the worker lives on: a new one has to import TensorFlow."""
    import keras
    import tensorflow as tf

    version = tuple(map(int, tf.__version__.split(".")[:2]))
    if source.kind != "keras" or version > _CRASHES:
        return
    layers = [
        item.name for item in source.model._flatten_layers() if isinstance(item, keras.layers.RNN) and not item.unroll
    ]
    if layers:
        raise NotImplementedError(
            f"TFLiteConverter of TensorFlow {tf.__version__} crashes while it calibrates recurrent layers,"
            f" and {layers[0]} is one"
        )


def _saved(source: LoadedSource) -> tempfile.TemporaryDirectory[str]:
    """A SavedModel whose one signature has the source's names, and whose variables the converter can freeze."""
    import keras
    import tensorflow as tf

    folder = tempfile.TemporaryDirectory()
    inputs, outputs = source.signature.inputs, source.signature.outputs

    def serve(**tensors: Any) -> dict[str, Any]:
        results = source.call(*(tensors[spec.name] for spec in inputs))
        return {spec.name: value for spec, value in zip(outputs, results, strict=True)}

    function = tf.function(serve, autograph=False)
    function.get_concrete_function(
        **{spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=re.sub(r"\W", "_", spec.name)) for spec in inputs}
    )
    archive = keras.export.ExportArchive()
    archive.track(source.model)
    archive.add_endpoint("serving_default", function)
    archive.write_out(folder.name, verbose=False)
    return folder


def _converter(saved_model: str, signature: Signature, job: ConversionRequest) -> Any:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if job.precision == "float32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif job.precision in INTEGER:
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


def _calibration(signature: Signature, job: ConversionRequest) -> Iterator[dict[str, Array]]:
    assert job.calibration is not None  # the base has made sure
    names = [spec.name for spec in signature.inputs]
    for arrays in batching.iter_batches(signature, job.calibration):
        yield dict(zip(names, arrays, strict=True))
