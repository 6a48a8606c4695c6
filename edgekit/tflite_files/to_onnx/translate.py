"""Translation of a float32 flatbuffer into an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.tflite_files.constants import constant_of
from edgekit.tflite_files.graph import ends, main_graph, op_name, parse_content, trip_count
from edgekit.tflite_files.to_onnx import operators_image, operators_math, operators_recurrent, operators_shape
from edgekit.tflite_files.to_onnx.builder import OPSET, Builder, LiteOperator, Untranslatable, Value, translator_of

# Loops of more iterations are refused: each becomes a copy of the body.
_MAX_ITERATIONS = 512
# Operators that the modules above translate; named here so that an import of them is not idle.
MODULES = (operators_image, operators_math, operators_recurrent, operators_shape)


def to_onnx(content: bytes, signature: Signature) -> Any:
    """Translate a flatbuffer.

    Args:
        content: The flatbuffer in float32, with its weights inside.
        signature: Its inputs and outputs, whose shapes are known better than those in the flatbuffer.

    Returns:
        The `onnx.ModelProto` at opset 20, with the names and shapes of the signature.

    Raises:
        InputError: The flatbuffer has operators that are not translated; the message names all of them.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = parse_content(content)
    translation = _Translation(model)
    inputs, outputs = ends(model)
    builder = translation.builder
    builder.names.update(spec.name for spec, _ in (*inputs, *outputs))
    values = {index: Value(last=spec.name) for spec, index in inputs}
    translation.run(main_graph(model), values)
    if translation.missing:
        raise InputError(
            f"edgekit does not translate {', '.join(translation.missing)} of this .tflite file; export it to tflite,"
            " which needs no translation, or name the Keras, PyTorch or ONNX model that it was made of"
        )
    graph = main_graph(model)
    for spec, index in outputs:
        values.setdefault(index, Value(constant=constant_of(model, graph.tensors[index])))
        name = builder.last(values[index], f"{spec.name}_value")
        builder.nodes.append(helper.make_node("Identity", [name], [spec.name], name=builder.unique(f"{spec.name}_end")))
    proto = helper.make_model(
        helper.make_graph(
            builder.nodes,
            "tflite",
            list(map(_value_info, signature.inputs)),
            list(map(_value_info, signature.outputs)),
            [numpy_helper.from_array(array, name) for name, array in builder.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    proto.ir_version = 9  # the version of opset 20
    onnx.checker.check_model(proto)
    return proto


def _value_info(spec: TensorSpec) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.shape)


class _Translation:
    """The translation of the subgraphs of one flatbuffer."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.builder = Builder()
        self.missing: list[str] = []

    def run(self, graph: Any, values: dict[int, Value]) -> None:
        """Translate the operators of a subgraph.

        Args:
            graph: The `SubGraphT`.
            values: The values of its inputs by tensor index; receives all others.
        """
        for op in graph.operators or []:
            name = op_name(self.model, op)
            operation = LiteOperator(self.builder, self.model, graph, op, name, values, self._inline)
            try:
                self._translate(operation)
            except Untranslatable as reason:
                self._miss(operation, f"{name} {reason}".strip())

    def _translate(self, operation: LiteOperator) -> None:
        if operation.name == "WHILE":
            self._unroll(operation)
        elif operation.name == "STABLEHLO_COMPOSITE":  # a named group of operators, beside the operators themselves
            results = self._inline(int(operation.option("decompositionSubgraphIndex")), _inputs(operation))
            _set_all(operation, results)
        else:
            translator = translator_of(operation.name)
            if translator is None:
                raise Untranslatable("")
            translator(operation)

    def _unroll(self, operation: LiteOperator) -> None:
        """Repeat the body of a loop whose number of iterations is known, as that of a recurrent layer is."""
        count = trip_count(self.model, operation.graph, operation.op)
        if count is None or count > _MAX_ITERATIONS:
            raise Untranslatable("with an unknown number of iterations" if count is None else f"of {count} iterations")
        state = _inputs(operation)
        for _ in range(count):
            state = self._inline(int(operation.option("bodySubgraphIndex")), state)
            if self.missing:
                break
        _set_all(operation, state)

    def _inline(self, index: int, inputs: Sequence[Value]) -> list[Value]:
        graph = self.model.subgraphs[index]
        values = {int(place): value for place, value in zip(graph.inputs, inputs, strict=True)}
        self.run(graph, values)
        return [
            values.get(int(place)) or Value(constant=constant_of(self.model, graph.tensors[int(place)]))
            for place in graph.outputs
        ]

    def _miss(self, operation: LiteOperator, what: str) -> None:
        """Remember an operator without translation, and go on, so that the message names all of them."""
        if what not in self.missing:
            self.missing.append(what)
        for position in range(len(operation.op.outputs)):
            operation.set("", position)


def _inputs(operation: LiteOperator) -> list[Value]:
    return [operation.value(position) for position in range(operation.inputs)]


def _set_all(operation: LiteOperator, results: Sequence[Value]) -> None:
    for position, value in enumerate(results):
        operation.set_value(value, position)
