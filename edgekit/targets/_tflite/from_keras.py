"""Conversion from Keras models and SavedModels to TFLite by TFLiteConverter."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import StepFailed
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import Signature
from edgekit.core.values.tensor_aliases import aliases
from edgekit.tflite_files.graph import rename_signature

CONVERTER = "TFLiteConverter"
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
INTEGER = ("int8", "int16x8")

# How TFLiteConverter names each operator that it has no translation for.
_UNSUPPORTED = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
# The newest TensorFlow whose calibration is known to end in SIGSEGV at the loop of a recurrent layer.
_NEWEST_CRASHING_TENSORFLOW = (2, 21)


def convert(source: LoadedSource, job: ConversionRequest) -> bytes:
    """Convert a Keras model or SavedModel at the precision of the request.

    Args:
        source: The loaded model.
        job: The request.

    Returns:
        The flatbuffer.

    Raises:
        NotImplementedError: The converter is known to crash for this model.
        StepFailed: TFLite has no operators for the model.
    """
    if job.precision in INTEGER:
        _reject_recurrent_layers(source)
    saved_model = source.cached("SavedModel", lambda: _write_saved_model(source))
    content = _convert(_converter(saved_model.name, source.signature, job))
    return rename_signature(content, aliases(source.signature.inputs), aliases(source.signature.outputs))


def _convert(converter: Any) -> bytes:
    try:
        content: bytes = converter.convert()
    except Exception as error:  # ConverterError, whose text is MLIR with the operators in several places
        operators = sorted(set(_UNSUPPORTED.findall(str(error))))
        if not operators:
            raise
        raise StepFailed(
            f"TFLite has no operator for TensorFlow's {', '.join(operators)}, which layers of the model compute with"
        ) from error
    return content


def convert_float(source: LoadedSource, folder: Path) -> bytes:
    """Convert a Keras model or SavedModel to a float32 flatbuffer.

    Args:
        source: The loaded model.
        folder: A folder for temporary files.

    Returns:
        The flatbuffer.
    """
    return convert(source, ConversionRequest("float32", folder))


def _reject_recurrent_layers(source: LoadedSource) -> None:
    """Raise NotImplementedError for layers that crash the converter, so that the export tries the next route."""
    import keras
    import tensorflow as tf

    # Without this check the crash would lead to the same route, but end the worker: a new one imports TensorFlow anew.
    version = tuple(map(int, tf.__version__.split(".")[:2]))
    if source.kind != "keras" or version > _NEWEST_CRASHING_TENSORFLOW:
        return
    layers = [
        layer.name
        for layer in source.model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and not layer.unroll  # unrolled layers have no loop
    ]
    if layers:
        raise NotImplementedError(
            f"TFLiteConverter of TensorFlow {tf.__version__} crashes while it calibrates recurrent layers,"
            f" and {layers[0]} is one"
        )


def _write_saved_model(source: LoadedSource) -> tempfile.TemporaryDirectory[str]:
    """Write a SavedModel with one signature, which has aliases of the source's names."""
    import keras
    import tensorflow as tf

    folder = tempfile.TemporaryDirectory()
    inputs, outputs = aliases(source.signature.inputs), aliases(source.signature.outputs)

    def serve(**tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, source.call(*(tensors[alias] for alias in inputs)), strict=True))

    function = tf.function(serve, autograph=False)
    function.get_concrete_function(
        **{
            alias: tf.TensorSpec(spec.shape, spec.dtype, name=alias)
            for alias, spec in zip(inputs, source.signature.inputs, strict=True)
        }
    )
    # Not from_concrete_functions: with a Keras 3 model, TensorFlow 2.21 leaves the weights out of the file. The
    # converter freezes the variables that an ExportArchive tracks.
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
    # DEFAULT alone quantizes weights to int8 and keeps float activations, which is the precision `dynamic`.
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
        # Integer operators only, in and out as well: a microcontroller or an NPU may have no float operators.
        converter.target_spec.supported_ops = [op_set]
        converter.inference_input_type = converter.inference_output_type = io_type
        converter.representative_dataset = lambda: _calibration(signature, job)
    return converter


def _calibration(signature: Signature, job: ConversionRequest) -> Iterator[dict[str, Array]]:
    assert job.calibration is not None  # checked by Target.convert
    names = list(aliases(signature.inputs))
    for arrays in batching.iter_batches(signature, job.calibration):
        yield dict(zip(names, arrays, strict=True))
