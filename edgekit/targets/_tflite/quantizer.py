"""Quantization of float flatbuffers by ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.targets._tflite import exact_values
from edgekit.targets._tflite.graph import read_signature

# The recipe of ai-edge-quantizer by precision; it has none for float16, which `_quantizer` builds.
RECIPES = {
    "float32": "none",
    "float16": "float_casting fp16",
    "dynamic": "dynamic_wi8_afp32",
    "int8": "static_wi8_ai8",
    "int16x8": "static_wi8_ai16",
    "int4": "dynamic_wi4_afp32",
}


# The precisions whose activations are integers, which falsify comparisons and masks.
_INTEGER = ("int8", "int16x8")


def quantize(content: bytes, job: ConversionRequest, path: Path) -> bool:
    """Quantize a float flatbuffer at the precision of the request.

    Args:
        content: The float32 flatbuffer.
        job: The request.
        path: The file to write.

    Returns:
        Whether operators stay in float because they compare exact values or mask.
    """
    if job.precision == "float32":
        path.write_bytes(content)
        return False
    # ai-edge-quantizer prints its progress.
    with tempfile.TemporaryDirectory(dir=job.folder) as folder, contextlib.redirect_stdout(io.StringIO()):
        raw = Path(folder, "float.tflite")
        raw.write_bytes(content)
        quantizer = _quantizer(str(raw), job.precision)
        kept = job.precision in _INTEGER and exact_values.keep(quantizer, content)
        calibration = ranges(raw, RECIPES[job.precision], job) if quantizer.need_calibration else None
        path.write_bytes(quantizer.quantize(calibration).quantized_model)
    return kept


def _quantizer(path: str, precision: str) -> Any:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    if precision != "float16":
        return quantizer.Quantizer(path, getattr(recipe, RECIPES[precision])())
    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    builder = quantizer.Quantizer(path)
    builder.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT
        ),
        algorithm_key="float_casting",
    )
    return builder


def ranges(path: Path, recipe_name: str, job: ConversionRequest, *, moving_average: bool = False) -> dict[str, Any]:
    """Measure the range over the calibration samples of every tensor that a recipe quantizes.

    Args:
        path: The float file.
        recipe_name: The name of a recipe of ai-edge-quantizer.
        job: The request with calibration samples.
        moving_average: Average the extremes of the samples instead of taking their minimum and maximum.

    Returns:
        The statistics by tensor name, as `Quantizer.quantize` takes them.
    """
    from ai_edge_quantizer import calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(getattr(recipe, recipe_name)())
    # Quantizer.calibrate() of ai-edge-quantizer 0.10 always takes the moving average (factor 0.95), which clips values
    # that are larger than usual: it loses 20 dB on simple_cnn, and gains some on other models.
    update = qsv_utils.moving_average_update if moving_average else qsv_utils.min_max_update
    # One thread, so that sums are taken in the same order and files have the same bytes.
    statistics = calibrator.Calibrator(path.read_bytes(), num_threads=1, qsv_update_func=update)
    statistics.calibrate(_samples(path, job), manager)
    tensor_ranges: dict[str, Any] = statistics.get_model_qsvs()
    return tensor_ranges


def _samples(path: Path, job: ConversionRequest) -> dict[str, list[dict[str, Array]]]:
    """Return the calibration samples, one call each, under the key of the file's signature."""
    from ai_edge_litert.interpreter import Interpreter

    assert job.calibration is not None  # checked by Target.convert
    key = next(iter(Interpreter(str(path)).get_signature_list()))
    signature = read_signature(path)
    return {
        key: [
            {spec.name: to_tensor(array, spec) for spec, array in zip(signature.inputs, arrays, strict=True)}
            for arrays in batching.iter_batches(signature, job.calibration)
        ]
    }
