"""Selective quantization of a float .tflite: which operators stay in float or take int16 activations, by recipe.

ai-edge-quantizer decides operator by operator: of the recipe entries whose regular expression is found in the
operator's scope (the names of its output tensors, each with a semicolon behind it) and whose operation is its own or
all, the last counts. The inputs and the outputs of the file are operators too, INPUT and OUTPUT, since a full-integer
file quantizes there. OUTPUT has the scope of the operator before it, so entries name the operation as well.
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
from edgekit.targets._tflite.quantizer import RECIPES, ranges

PRECISIONS = frozenset({"dynamic", "int8", "int16x8", "int4"})
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "moving-average")
_IO = ("INPUT", "OUTPUT")
_TITLE = 34
_ranges: dict[str, dict[str, Any]] = {}


def _operators(model: Any) -> list[tuple[str, Any, str, Any]]:
    """(name of the layer, operation, scope, operator) of the main graph, in the order of computation.

    Operators that the quantizer does not know are left out: they stay in float whatever a recipe says.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    graph = model.subgraphs[0]
    first, last = utils.get_subgraph_input_output_operators(graph)
    found = []
    for index, op in enumerate(graph.operators):
        operation = utils.TFL_OP_CODE_TO_NAME.get(model.operatorCodes[op.opcodeIndex].builtinCode)
        if operation is not None:
            found.append((f"{index}:{operation.value}", operation, op))
    whole = [("INPUT", first.op_key, first), *found, ("OUTPUT", last.op_key, last)]
    return [(name, operation, utils.get_op_scope(op, graph.tensors), op) for name, operation, op in whole]


def _read(base: Path) -> Any:
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils

    return utils.read_model(base.read_bytes())


def layers(base: Path) -> tuple[QuantizableLayer, ...]:
    """The operators of a float file that int8 quantizes, its inputs and its outputs."""
    model = _read(base)
    narrow, wide = (_manager(RECIPES[precision]) for precision in ("int8", "int16x8"))
    graph = model.subgraphs[0]
    made = []
    for name, operation, scope, op in _operators(model):
        if _quantizes(narrow, operation, scope):
            tensors = [graph.tensors[index] for index in op.inputs if index >= 0]
            constant = [tensor for tensor in tensors if _is_constant(model, tensor)]
            made.append(
                QuantizableLayer(
                    name,
                    operation.value,
                    operation.value if name in _IO else _title(scope, operation.value),
                    tuple(_name(tensor) for tensor in tensors if not _is_constant(model, tensor)),
                    tuple(_name(graph.tensors[index]) for index in op.outputs),
                    sum(_elements(tensor) for tensor in constant if tensor.type == 0),  # FLOAT32: shapes are integers
                    name not in _IO and _quantizes(wide, operation, scope),
                )
            )
    return tuple(made)


def _manager(name: str) -> Any:
    from ai_edge_quantizer import recipe, recipe_manager

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(getattr(recipe, name)())
    return manager


def _quantizes(manager: Any, operation: Any, scope: str) -> bool:
    """Whether a recipe says anything of the operator: what it does not support is left in float without a word."""
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
    """`simple_cnn_1/dense_9_1/MatMul;…` is `dense_9_1/MatMul`; module paths lose their packages.

    The tensors of the file's outputs are called after the call that returns them: the operation says more.
    """
    if scope.startswith(("StatefulPartitionedCall", "serving_default")):
        return operation
    parts = [part.rpartition(".")[2] for part in scope.split(";", maxsplit=1)[0].split("/")]
    text = "/".join(parts[-2:])
    return text if len(text) <= _TITLE else f"…{text[1 - _TITLE :]}"


def select(base: Path, recipe: Recipe, job: ConversionRequest, path: Path) -> None:
    """Writes the flatbuffer that the recipe describes to `path`.

    Raises InputError when it names a layer that is not there, or int16 where there is none.
    """
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer import recipe as recipes

    content = base.read_bytes()
    made = quantizer.Quantizer(content, getattr(recipes, RECIPES[recipe.precision])())
    operators = {name: (operation, scope) for name, operation, scope, _ in _operators(_read(base))}
    known = layers(base)
    for layer in _int16(known, recipe):
        operation, scope = operators[layer.name]
        made.add_static_config(_exactly(scope), operation, activation_num_bits=16, weight_num_bits=8)
    for layer in named_layers(known, recipe.float_layers):
        operation, scope = operators[layer.name]
        made.update_quantization_recipe(_exactly(scope), operation, algorithm_key="no_quantize")
    with contextlib.redirect_stdout(io.StringIO()):
        found = _known_ranges(base, content, recipe, job) if job.calibration and made.need_calibration else None
        path.write_bytes(made.quantize(found, enable_progress_report=False).quantized_model)


def _exactly(scope: str) -> str:
    return f"^{re.escape(scope)}$"


def _int16(known: Sequence[QuantizableLayer], recipe: Recipe) -> list[QuantizableLayer]:
    chosen = named_layers(known, recipe.int16_layers)
    if chosen and recipe.precision != "int8":
        raise InputError(f"int16_layers belong to the precision int8, not to {recipe.precision}")
    for layer in chosen:
        if not layer.int16:  # the quantizer would make it int8 without a word
            raise InputError(f"the recipe wants int16 activations for {layer.name}, which TFLite does not have")
    return chosen


def _known_ranges(base: Path, content: bytes, recipe: Recipe, job: ConversionRequest) -> dict[str, Any]:
    """Taken once for a float file, samples and method: they do not depend on which layers are quantized."""
    assert job.calibration is not None  # the base has made sure
    hasher = hashlib.sha256(content)
    hasher.update(str(recipe.calibration).encode())
    for name in sorted(job.calibration):
        hasher.update(name.encode() + job.calibration[name].tobytes())
    key = hasher.hexdigest()
    if key not in _ranges:
        _ranges[key] = ranges(base, RECIPES["int8"], job, moving_average=recipe.calibration == "moving-average")
    return _ranges[key]
