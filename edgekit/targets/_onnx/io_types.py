"""Integer types of a quantized graph's inputs and outputs, and where their scales are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.core.values.onnx_metadata import METADATA_KEY

# Elements of ONNX's TensorProto.DataType.
_ELEMENTS = {"uint8": 2, "int8": 3}
_UINT8_OFFSET = 128

# Returns (lowest, highest) real value of a tensor that the quantizer has left in float.
RangeOf = Callable[[str], tuple[float, float]]


class IoTypes:
    """An edit of one quantized graph."""

    def __init__(self, model: Any, range_of: RangeOf, *, symmetric: bool) -> None:
        """Prepare the edit.

        Args:
            model: The `ModelProto` with QDQ nodes, which is edited.
            range_of: Returns the range of an input or output that no node quantizes.
            symmetric: Whether such a range gets a symmetric zero point.
        """
        self._model = model
        self._graph = model.graph
        self._range_of = range_of
        self._symmetric = symmetric
        self._recorded: dict[str, dict[str, float | int]] = {}

    def change(self, input_type: str | None, output_type: str | None) -> None:
        """Give all float inputs and outputs other types; float32 leaves them as they are.

        Args:
            input_type: `int8`, `uint8`, `float32` or None.
            output_type: The same for outputs.
        """
        for value in [value for value in self._graph.input if value.type.tensor_type.elem_type == 1]:
            if input_type in _ELEMENTS:
                self._change_input(value, input_type)
        for value in [value for value in self._graph.output if value.type.tensor_type.elem_type == 1]:
            if output_type in _ELEMENTS:
                self._change_output(value, output_type)
        if self._recorded:
            entry = self._model.metadata_props.add()
            entry.key, entry.value = METADATA_KEY, json.dumps(self._recorded, sort_keys=True)

    def _change_input(self, value: Any, wanted: str) -> None:
        name = value.name
        readers = [node for node in self._graph.node if name in node.input]
        parameters = None
        if readers and all(node.op_type == "QuantizeLinear" for node in readers):
            parameters = self._parameters(readers[0])
        if parameters is not None and parameters.zero_point.dtype == wanted:
            self._record(value, parameters, wanted)
            for quantize in readers:  # the input is what they would compute
                self._replace_reads(quantize.output[0], name)
                self._graph.node.remove(quantize)
            return
        parameters = self._converted(name, parameters, wanted)
        self._record(value, parameters, wanted)
        self._replace_reads(name, f"{name}_real")
        self._insert("DequantizeLinear", name, f"{name}_real", parameters, first=True)

    def _change_output(self, value: Any, wanted: str) -> None:
        name = value.name
        producer = next(node for node in self._graph.node if name in node.output)
        parameters = self._parameters(producer) if producer.op_type == "DequantizeLinear" else None
        self._replace_reads(name, f"{name}_real")
        producer.output[:] = [f"{name}_real" if output == name else output for output in producer.output]
        quantized = None
        if parameters is not None and parameters.zero_point.dtype == wanted:
            quantized = next((node for node in self._graph.node if producer.input[0] in node.output), None)
        if quantized is not None:
            inner = producer.input[0]
            self._replace_reads(inner, name)
            quantized.output[:] = [name if output == inner else output for output in quantized.output]
            if not any(f"{name}_real" in node.input for node in self._graph.node):
                self._graph.node.remove(producer)
        else:
            parameters = self._converted(name, parameters, wanted)
            self._insert("QuantizeLinear", f"{name}_real", name, parameters, first=False)
        assert parameters is not None  # either branch has them
        self._record(value, parameters, wanted)

    def _converted(self, name: str, parameters: _Parameters | None, wanted: str) -> _Parameters:
        """Return the same parameters for another integer type, or parameters for the tensor's range."""
        if parameters is not None and parameters.zero_point.dtype == wanted:
            return parameters
        if parameters is not None:
            shift = _UINT8_OFFSET if wanted == "uint8" else -_UINT8_OFFSET
            return _Parameters(parameters.scale, np.asarray(int(parameters.zero_point) + shift, wanted))
        return _for_range(*self._range_of(name), wanted, symmetric=self._symmetric)

    def _parameters(self, node: Any) -> _Parameters | None:
        """Return the scale and zero point of a QDQ node; None for scales per channel and computed ones."""
        from onnx import numpy_helper

        constants = {tensor.name: tensor for tensor in self._graph.initializer}
        if len(node.input) < 3 or not all(name in constants for name in node.input[1:3]):
            return None
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        return _Parameters(scale.reshape(()), zero_point.reshape(())) if scale.size == 1 else None

    def _insert(self, kind: str, read: str, written: str, parameters: _Parameters, *, first: bool) -> None:
        from onnx import helper, numpy_helper

        names = [f"{written}_scale_of_end", f"{written}_zero_point_of_end"]
        for name, array in zip(names, (parameters.scale, parameters.zero_point), strict=True):
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        node = helper.make_node(kind, [read, *names], [written], name=f"{written}_end_{kind}")
        self._graph.node.insert(0 if first else len(self._graph.node), node)

    def _replace_reads(self, old: str, new: str) -> None:
        for node in self._graph.node:
            node.input[:] = [new if name == old else name for name in node.input]

    def _record(self, value: Any, parameters: _Parameters, wanted: str) -> None:
        value.type.tensor_type.elem_type = _ELEMENTS[wanted]
        self._recorded[value.name] = {"scale": float(parameters.scale), "zero_point": int(parameters.zero_point)}


class _Parameters:
    """Scale and zero point of one tensor, as arrays without dimensions; the zero point has the integer type."""

    def __init__(self, scale: Array, zero_point: Array) -> None:
        self.scale = scale
        self.zero_point = zero_point


def _for_range(low: float, high: float, wanted: str, *, symmetric: bool) -> _Parameters:
    """Return the parameters of a range, as `onnxruntime.quantization` computes them: 0 is represented exactly."""
    limits = np.iinfo(wanted)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    scale = np.float32((high - low) / (limits.max - limits.min)) or np.float32(1.0)
    middle = limits.min + (limits.max - limits.min + 1) // 2
    zero_point = middle if symmetric else round(limits.min - low / float(scale))
    return _Parameters(np.asarray(scale), np.asarray(np.clip(zero_point, limits.min, limits.max), wanted))
