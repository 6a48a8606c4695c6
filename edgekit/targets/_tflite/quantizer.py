"""From a float .tflite to the other precisions by ai-edge-quantizer, which rewrites the flatbuffer in milliseconds."""

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
from edgekit.targets._tflite.graph import read_signature

RECIPES = {
    "float32": "none",
    "float16": "float_casting fp16",
    "dynamic": "dynamic_wi8_afp32",
    "int8": "static_wi8_ai8",
    "int16x8": "static_wi8_ai16",
    "int4": "dynamic_wi4_afp32",
}


def quantize(content: bytes, job: ConversionRequest, path: Path) -> None:
    """Writes the float flatbuffer at the job's precision to `path`."""
    if job.precision == "float32":
        path.write_bytes(content)
        return
    with tempfile.TemporaryDirectory(dir=job.folder) as folder, contextlib.redirect_stdout(io.StringIO()):
        raw = Path(folder, "float.tflite")
        raw.write_bytes(content)
        quantizer = _quantizer(str(raw), job.precision)
        calibration = ranges(raw, RECIPES[job.precision], job) if quantizer.need_calibration else None
        path.write_bytes(quantizer.quantize(calibration).quantized_model)


def _quantizer(path: str, precision: str) -> Any:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    if precision != "float16":
        return quantizer.Quantizer(path, getattr(recipe, RECIPES[precision])())
    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    made = quantizer.Quantizer(path)
    made.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT
        ),
        algorithm_key="float_casting",
    )
    return made


def ranges(path: Path, recipe_name: str, job: ConversionRequest, *, moving_average: bool = False) -> dict[str, Any]:
    """The lowest and the highest value over the samples of every tensor that the recipe quantizes.

    Quantizer.calibrate() would take a moving average of each sample's extremes (factor 0.95), which clips whatever is
    larger than usual: on simple_cnn that costs 20 dB, elsewhere it gains some; so it must be asked for.
    """
    from ai_edge_quantizer import calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(getattr(recipe, recipe_name)())
    update = qsv_utils.moving_average_update if moving_average else qsv_utils.min_max_update
    made = calibrator.Calibrator(path.read_bytes(), num_threads=1, qsv_update_func=update)
    made.calibrate(_samples(path, job), manager)
    found: dict[str, Any] = made.get_model_qsvs()
    return found


def _samples(path: Path, job: ConversionRequest) -> dict[str, list[dict[str, Array]]]:
    """Real inputs one by one, under the key of the file's signature."""
    from ai_edge_litert.interpreter import Interpreter

    assert job.calibration is not None  # the base has made sure
    key = next(iter(Interpreter(str(path)).get_signature_list()))
    signature = read_signature(path)
    return {
        key: [
            {spec.name: to_tensor(array, spec) for spec, array in zip(signature.inputs, arrays, strict=True)}
            for arrays in batching.iter_batches(signature, job.calibration)
        ]
    }
