"""Quantization of float flatbuffers by ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import unknown_name
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.targets._tflite import exact_values
from edgekit.tflite_files.graph import read_signature, tensor_names

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
        quantizer = _quantizer(str(raw), job)
        kept = job.precision in _INTEGER and exact_values.keep(quantizer, content)
        calibration = None
        if quantizer.need_calibration:
            calibration = with_set_ranges(ranges(raw, RECIPES[job.precision], job), raw, job.form)
        path.write_bytes(quantizer.quantize(calibration).quantized_model)
    return kept


def _quantizer(path: str, job: ConversionRequest) -> Any:
    from ai_edge_quantizer import qtyping, quantizer

    if job.precision != "float16":
        return quantizer.Quantizer(path, recipe_entries(job.precision, job.form))
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


def recipe_entries(precision: str, form: QuantizationForm) -> Any:
    """Return the recipe of ai-edge-quantizer for a precision and a form.

    Args:
        precision: A precision in `RECIPES`, without float32 and float16.
        form: The form, of which the granularity of weights and the kind of activations are used.

    Returns:
        The entries of the recipe.
    """
    from ai_edge_quantizer import recipe

    entries = copy.deepcopy(getattr(recipe, RECIPES[precision])())
    for entry in entries:
        if form.per_tensor:
            entry["op_config"]["weight_tensor_config"]["granularity"] = "TENSORWISE"
        if form.symmetric_activations:
            entry["op_config"]["activation_tensor_config"]["symmetric"] = True
    return entries


def with_set_ranges(statistics: dict[str, Any], path: Path, form: QuantizationForm) -> dict[str, Any]:
    """Return statistics with the ranges that the user has set.

    Args:
        statistics: What `ranges` has measured; it is not changed.
        path: The float file.
        form: The form; ranges are by the names of inputs, outputs or tensors of the file.

    Returns:
        The statistics by tensor name.

    Raises:
        InputError: No tensor that is quantized has the name.
    """
    changed = dict(statistics)
    names = tensor_names(path)
    for name, (low, high) in form.ranges.items():
        tensor = names.get(name, name)
        if tensor not in changed:
            raise unknown_name("tensor", name, [*names, *(known for known in changed if known not in names.values())])
        shapes = {end: np.shape(values) for end, values in changed[tensor].items()}
        changed[tensor] = {end: np.full(shapes[end], value, np.float32) for end, value in (("min", low), ("max", high))}
    return changed


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
