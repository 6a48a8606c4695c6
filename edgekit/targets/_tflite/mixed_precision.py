"""Mixed-precision quantization of float flatbuffers: a recipe names operators that stay float or get int16 activations.

ai-edge-quantizer 0.10 matches each operator against the entries of a recipe, and the last match decides. An entry
matches if its operation is the operator's or all, and if its regular expression is found in the operator's scope: the
names of its output tensors, each followed by a semicolon. The inputs and outputs of the file are the operators INPUT
and OUTPUT, since a full-integer file quantizes there. OUTPUT has the scope of the operator before it, so entries name
the operation too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, QuantizableLayer, named_layers
from edgekit.core.errors import InputError
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.targets._tflite import exact_values
from edgekit.targets._tflite.quantizer import RECIPES, ranges, recipe_entries, with_set_ranges

PRECISIONS = frozenset({"dynamic", "int8", "int16x8", "int4"})
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "moving-average")
_IO = ("INPUT", "OUTPUT")

# Characters; keeps the table rows of `tune` and `diff` on one line of a terminal.
_TITLE_LENGTH = 34

# Calibration ranges of this process, by a digest of what they depend on.
_ranges: dict[str, dict[str, Any]] = {}


def _operators(model: Any) -> list[tuple[str, Any, str, Any]]:
    """Return (layer name, operation, scope, operator) of the main graph's operators, in execution order.

    Operators that the quantizer does not support are left out: no recipe can quantize them.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    graph = model.subgraphs[0]
    first, last = utils.get_subgraph_input_output_operators(graph)
    supported = []
    for index, op in enumerate(graph.operators):
        operation = utils.TFL_OP_CODE_TO_NAME.get(model.operatorCodes[op.opcodeIndex].builtinCode)
        if operation is not None:
            supported.append((f"{index}:{operation.value}", operation, op))
    operators = [("INPUT", first.op_key, first), *supported, ("OUTPUT", last.op_key, last)]
    return [(name, operation, utils.get_op_scope(op, graph.tensors), op) for name, operation, op in operators]


def _read(base: Path) -> Any:
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    return utils.read_model(base.read_bytes())


def layers(base: Path) -> tuple[QuantizableLayer, ...]:
    """Return the operators that int8 quantizes, with the inputs and outputs of the file, in execution order.

    Args:
        base: The float file.

    Returns:
        One entry per operator.
    """
    model = _read(base)
    int8, int16x8 = (_recipe_manager(RECIPES[precision]) for precision in ("int8", "int16x8"))
    graph = model.subgraphs[0]
    quantizable = []
    for name, operation, scope, op in _operators(model):
        if _quantizes(int8, operation, scope):
            tensors = [graph.tensors[index] for index in op.inputs if index >= 0]  # -1 is an absent optional input
            constant = [tensor for tensor in tensors if _is_constant(model, tensor)]
            quantizable.append(
                QuantizableLayer(
                    name,
                    operation.value,
                    operation.value if name in _IO else _title(scope, operation.value),
                    tuple(_name(tensor) for tensor in tensors if not _is_constant(model, tensor)),
                    tuple(_name(graph.tensors[index]) for index in op.outputs),
                    sum(_elements(tensor) for tensor in constant if tensor.type == 0),  # FLOAT32: shapes are integers
                    name not in _IO and _quantizes(int16x8, operation, scope),
                )
            )
    return tuple(quantizable)


def _recipe_manager(name: str) -> Any:
    from ai_edge_quantizer import recipe, recipe_manager

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(getattr(recipe, name)())
    return manager


def _quantizes(manager: Any, operation: Any, scope: str) -> bool:
    """Return whether a recipe quantizes the operator."""
    # The quantizer silently skips entries that an operator does not support, and leaves it in float.
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    algorithm, _ = manager.get_quantization_configs(operation, scope)
    return bool(algorithm != AlgorithmName.NO_QUANTIZE)


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _elements(tensor: Any) -> int:
    count = 1
    for dim in tensor.shape if tensor.shape is not None else ():
        count *= abs(int(dim))
    return count


def _name(tensor: Any) -> str:
    return str(tensor.name.decode("utf-8", "replace"))


def _title(scope: str, operation: str) -> str:
    """Return a short title: `dense_9_1/MatMul` for `simple_cnn_1/dense_9_1/MatMul;…`."""
    # TensorFlow names the tensors of inputs and outputs after the function, which says nothing about the operator.
    if scope.startswith(("StatefulPartitionedCall", "serving_default")):
        return operation
    # litert-torch writes module paths with dots; their last component is the module's own name.
    parts = [part.rpartition(".")[2] for part in scope.split(";", maxsplit=1)[0].split("/")]
    title = "/".join(parts[-2:])
    return title if len(title) <= _TITLE_LENGTH else f"…{title[1 - _TITLE_LENGTH :]}"


def select(base: Path, recipe: Recipe, job: ConversionRequest, path: Path) -> None:
    """Write the flatbuffer that a recipe describes.

    Args:
        base: The float file.
        recipe: The precision, the exceptions by layer, and how ranges are taken.
        job: The request with calibration samples.
        path: The file to write.

    Raises:
        InputError: The recipe names a layer that does not exist, or int16 activations where they are not supported.
    """
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import QuantGranularity

    content = base.read_bytes()
    builder = quantizer.Quantizer(content, recipe_entries(recipe.precision, job.form))
    if recipe.precision in ("int8", "int16x8"):
        exact_values.keep(builder, content)
    granularity = QuantGranularity.TENSORWISE if job.form.per_tensor else QuantGranularity.CHANNELWISE
    operators = {name: (operation, scope) for name, operation, scope, _ in _operators(_read(base))}
    quantizable = layers(base)
    # The last matching entry decides, so exceptions come after the entries of the whole recipe.
    for layer in _int16_layers(quantizable, recipe):
        operation, scope = operators[layer.name]
        builder.add_static_config(_exact_pattern(scope), operation, 16, 8, granularity)
    for layer in named_layers(quantizable, recipe.float_layers):
        operation, scope = operators[layer.name]
        builder.update_quantization_recipe(_exact_pattern(scope), operation, algorithm_key="no_quantize")
    with contextlib.redirect_stdout(io.StringIO()):  # ai-edge-quantizer prints its progress
        calibration = None
        if job.calibration and builder.need_calibration:
            calibration = with_set_ranges(_cached_ranges(base, content, recipe, job), base, job.form)
        path.write_bytes(builder.quantize(calibration, enable_progress_report=False).quantized_model)


def _exact_pattern(scope: str) -> str:
    # Unanchored, `dense` would match `dense_1` as well.
    return f"^{re.escape(scope)}$"


def _int16_layers(quantizable: Sequence[QuantizableLayer], recipe: Recipe) -> list[QuantizableLayer]:
    selected = named_layers(quantizable, recipe.int16_layers)
    if selected and recipe.precision != "int8":
        raise InputError(f"int16_layers are supported at the precision int8 only, not at {recipe.precision}")
    for layer in selected:
        if not layer.int16:  # the quantizer would silently use int8 activations
            raise InputError(f"the recipe asks for int16 activations of {layer.name}, which TFLite does not support")
    return selected


def _cached_ranges(base: Path, content: bytes, recipe: Recipe, job: ConversionRequest) -> dict[str, Any]:
    """Return the calibration ranges, measured once per float file, samples and method."""
    # Ranges do not depend on which layers are quantized, and a search converts the same file many times.
    assert job.calibration is not None  # checked by the caller
    hasher = hashlib.sha256(content)
    hasher.update(str(recipe.calibration).encode())
    for name in sorted(job.calibration):
        hasher.update(name.encode() + job.calibration[name].tobytes())
    key = hasher.hexdigest()
    if key not in _ranges:
        _ranges[key] = ranges(base, RECIPES["int8"], job, moving_average=recipe.calibration == "moving-average")
    return _ranges[key]
