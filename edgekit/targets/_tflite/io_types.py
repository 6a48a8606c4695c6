"""Other types of a quantized flatbuffer's inputs and outputs, by operators in front of and behind its body."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.tflite_files.graph import main_graph, pack, parse_content, schema, text

# By how much an unsigned integer is larger than the signed one that stands for the same real value.
_UINT8_OFFSET = 128


def change_io_types(content: bytes, form: QuantizationForm) -> bytes:
    """Give the quantized inputs and outputs of a flatbuffer the types of a form.

    An operator is put between the old and the new tensor: QUANTIZE from float32 and between int8 and uint8, DEQUANTIZE
    to float32. TFLiteConverter does the same for `inference_input_type` and `inference_output_type`.

    Args:
        content: The flatbuffer, with its weights inside.
        form: The form; its types are supported by the target.

    Returns:
        The new flatbuffer, or `content` itself if no type changes.
    """
    model = parse_content(content)
    graph = main_graph(model)
    inputs = _changed(graph, graph.inputs, form.inference_input_type)
    outputs = _changed(graph, graph.outputs, form.inference_output_type)
    if not inputs and not outputs:
        return content
    before = [_insert(model, graph, old, str(form.inference_input_type), reads_new=True) for old in inputs]
    after = [_insert(model, graph, old, str(form.inference_output_type), reads_new=False) for old in outputs]
    graph.operators = [*(op for op, _ in before), *graph.operators, *(op for op, _ in after)]
    new_inputs = dict(zip(inputs, (index for _, index in before), strict=True))
    new_outputs = dict(zip(outputs, (index for _, index in after), strict=True))
    graph.inputs = [new_inputs.get(int(index), int(index)) for index in graph.inputs]
    graph.outputs = [new_outputs.get(int(index), int(index)) for index in graph.outputs]
    for definition in model.signatureDefs or ():
        for entries, renamed in ((definition.inputs, new_inputs), (definition.outputs, new_outputs)):
            for entry in entries:
                entry.tensorIndex = renamed.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return pack(model)


def _changed(graph: Any, indices: Sequence[int], wanted: str | None) -> list[int]:
    """Return the quantized tensors whose type is another one than the wanted one, each once."""
    if wanted is None:
        return []
    code = getattr(schema().TensorType, wanted.upper())
    return [index for index in dict.fromkeys(map(int, indices)) if _is_quantized(graph, index, code)]


def _is_quantized(graph: Any, index: int, code: int) -> bool:
    tensor = graph.tensors[index]
    quantization = tensor.quantization
    has_scale = quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    return has_scale and tensor.type != code


def _insert(model: Any, graph: Any, old: int, wanted: str, *, reads_new: bool) -> tuple[Any, int]:
    """Add a tensor of the wanted type, and return the operator between the two and the index of the new one."""
    types = schema().TensorType
    inner = graph.tensors[old]
    outer = copy.deepcopy(inner)
    outer.type = getattr(types, wanted.upper())
    outer.buffer = 0  # of a tensor without constant data
    if wanted == "float32":
        outer.quantization = None
    else:
        shift = _UINT8_OFFSET * (int(wanted == "uint8") - int(inner.type == types.UINT8))
        outer.quantization.zeroPoint = np.asarray([int(inner.quantization.zeroPoint[0]) + shift], np.int64)
    # Users look tensors up by name: the outer one keeps it.
    inner.name = f"{text(inner.name)}_quantized".encode()
    graph.tensors.append(outer)
    new = len(graph.tensors) - 1
    read, written = (new, old) if reads_new else (old, new)
    name = "DEQUANTIZE" if wanted == "float32" and not reads_new else "QUANTIZE"
    operator = schema().OperatorT()
    operator.opcodeIndex = _operator_code(model, name, wide=types.INT16 in (inner.type, outer.type))
    operator.inputs, operator.outputs = np.asarray([read], np.int32), np.asarray([written], np.int32)
    return operator, new


def _operator_code(model: Any, name: str, *, wide: bool) -> int:
    """Return the index of an operator's code, which is added if there is none."""
    builtin = getattr(schema().BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin  # both are below 127, up to which the old field counts
    code.version = 3 if wide else 2  # the versions since which both operators know int16 and int8
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
