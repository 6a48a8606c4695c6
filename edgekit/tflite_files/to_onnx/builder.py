"""The ONNX graph under construction, and the operator of the flatbuffer that is being translated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.tflite_files.constants import constant_of
from edgekit.tflite_files.graph import tensor_dtype, text

# The operator set of the graphs, which has HardSwish (14), reductions with computed axes (18) and Gelu (20).
OPSET = 20
# From (N, H, W, C) to (N, C, H, W), and back.
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Untranslatable(Exception):
    """Raised by a translation for an operator whose form ONNX does not have; the text says which form."""


@dataclass
class Value:
    """A tensor of the flatbuffer in the ONNX graph.

    Attributes:
        last: The name of the tensor as the flatbuffer has it, with the channels of an image last; None until needed.
        first: The name of the same tensor with the channels first; None until needed, or if it is no image.
        constant: The values, with channels last, if it is a constant.
    """

    last: str | None = None
    first: str | None = None
    constant: Array | None = None


@dataclass
class Builder:
    """Nodes and constants of the ONNX graph.

    TFLite's images have their channels last, ONNX's operators on images want them first. A tensor is transposed only
    where an operator needs the other layout: most operators take either.

    Attributes:
        nodes: The nodes in order.
        constants: The constants by name.
        names: All names in use.
        known: The names of the constants by type, shape and hash.
    """

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    known: dict[Hashable, str] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """Return a name that is not in use, derived from the given one."""
        candidate, count = name or "tensor", 0
        while candidate in self.names:
            count += 1
            candidate = f"{name}_{count}"
        self.names.add(candidate)
        return candidate

    def constant(self, values: Any, dtype: str | None = None, name: str = "constant") -> str:
        """Add a constant and return its name; equal ones, such as those of the iterations of a loop, are one."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self.known:
            self.known[key] = self.unique(name)
            self.constants[self.known[key]] = array
        return self.known[key]

    def emit(self, op_type: str, inputs: Sequence[str], name: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node and return the names of its outputs."""
        from onnx import helper

        results = [self.unique(name) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), results, name=results[0], **attributes))
        return results

    def last(self, value: Value, name: str) -> str:
        """Return the name of a tensor with its channels last."""
        if value.last is None:
            if value.constant is not None:
                value.last = self.constant(value.constant, name=name)
            else:
                assert value.first is not None  # a value has one of both
                (value.last,) = self.emit("Transpose", [value.first], f"{name}_last", perm=TO_LAST)
        return value.last

    def first(self, value: Value, name: str) -> str:
        """Return the name of an image with its channels first."""
        if value.first is None:
            if value.constant is not None:
                value.first = self.constant(value.constant.transpose(TO_FIRST), name=name)
            else:
                assert value.last is not None  # a value has one of both
                (value.first,) = self.emit("Transpose", [value.last], f"{name}_first", perm=TO_FIRST)
        return value.first


@dataclass
class LiteOperator:
    """One operator of the flatbuffer, with access to its tensors.

    Attributes:
        builder: The graph under construction.
        model: The `ModelT`.
        graph: The subgraph of the operator.
        op: The `OperatorT`.
        name: The operator's name, such as `CONV_2D`.
        values: The tensors of the subgraph that are known so far, by index.
        inline: Translates another subgraph in place: its index and the values of its inputs give those of its outputs.
    """

    builder: Builder
    model: Any
    graph: Any
    op: Any
    name: str
    values: dict[int, Value]
    inline: Callable[[int, list[Value]], list[Value]]

    @property
    def title(self) -> str:
        """The name of the operator's first output, from which names of nodes are derived."""
        return text(self.graph.tensors[int(self.op.outputs[0])].name) if len(self.op.outputs) else self.name

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option of the operator; the default if the file leaves all options out."""
        # Operators of StableHLO have theirs in a second table.
        options = self.op.builtinOptions or self.op.builtinOptions2
        return default if options is None else getattr(options, name, default)

    @property
    def inputs(self) -> int:
        """The number of inputs, omitted ones included."""
        return len(self.op.inputs)

    def has(self, position: int) -> bool:
        """Return whether an optional input is there."""
        return position < len(self.op.inputs) and int(self.op.inputs[position]) >= 0

    def value(self, position: int) -> Value:
        """Return an input as a value."""
        index = int(self.op.inputs[position])
        if index not in self.values:
            tensor = self.graph.tensors[index]
            constant = np.zeros(_shape(tensor), tensor_dtype(tensor)) if 0 in _shape(tensor) else None
            constant = constant_of(self.model, tensor) if constant is None else constant
            if constant is None:
                raise Untranslatable("which reads a tensor without a value")
            self.values[index] = Value(constant=constant)
        return self.values[index]

    def const(self, position: int) -> Array | None:
        """Return the values of an input that is constant, else None."""
        return self.value(position).constant

    def numbers(self, position: int, what: str) -> list[int]:
        """Return an input of integers that must be constant, such as axes."""
        constant = self.const(position)
        if constant is None:
            raise Untranslatable(f"with {what} that are computed")
        return [int(number) for number in constant.reshape(-1)]

    def _input_name(self, position: int) -> str:
        return text(self.graph.tensors[int(self.op.inputs[position])].name)

    def input(self, position: int) -> str:
        """Return the name of an input with its channels last."""
        return self.builder.last(self.value(position), self._input_name(position))

    def image(self, position: int) -> str:
        """Return the name of an image with its channels first."""
        return self.builder.first(self.value(position), self._input_name(position))

    def integers(self, position: int) -> str:
        """Return the name of an input as int64, which ONNX takes shapes, axes and indices in."""
        constant = self.const(position)
        if constant is not None:
            return self.constant(constant, "int64")
        return self.cast(self.input(position), "int64")

    def shape(self, position: int) -> tuple[int, ...]:
        """Return the shape of an input as the file has it; 1 stands for unknown sizes as well."""
        return _shape(self.graph.tensors[int(self.op.inputs[position])])

    def rank(self, position: int) -> int:
        """Return the number of dimensions of an input."""
        constant = self.const(position)
        return len(self.shape(position)) if constant is None else constant.ndim

    def is_dynamic(self, position: int, axis: int) -> bool:
        """Return whether the size of a dimension of an input is unknown."""
        signature = self.graph.tensors[int(self.op.inputs[position])].shapeSignature
        return signature is not None and len(signature) > 0 and int(signature[axis]) < 0

    def output_shape(self, position: int = 0) -> tuple[int, ...]:
        """Return the shape of an output as the file has it."""
        return _shape(self.graph.tensors[int(self.op.outputs[position])])

    def dtype(self, position: int) -> str:
        """Return numpy's name of the type of an input."""
        return tensor_dtype(self.graph.tensors[int(self.op.inputs[position])])

    def output_dtype(self, position: int = 0) -> str:
        """Return numpy's name of the type of an output."""
        return tensor_dtype(self.graph.tensors[int(self.op.outputs[position])])

    def is_float(self, position: int) -> bool:
        """Return whether an input is floating-point."""
        return self.dtype(position).startswith("float")

    def constant(self, values: Any, dtype: str | None = None) -> str:
        """Add a constant and return its name."""
        return self.builder.constant(values, dtype, f"{self.title}_constant")

    def emit(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.builder.emit(op_type, inputs, self.title, **attributes)[0]

    def emit_many(self, op_type: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        return self.builder.emit(op_type, inputs, self.title, outputs, **attributes)

    def cast(self, name: str, dtype: str) -> str:
        """Return the name of a tensor in another type."""
        from onnx import helper

        return self.emit("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def set(self, name: str, position: int = 0) -> None:
        """Set an output, with its channels last."""
        self.values[int(self.op.outputs[position])] = Value(last=name)

    def set_image(self, name: str, position: int = 0) -> None:
        """Set an output that is an image with its channels first."""
        self.values[int(self.op.outputs[position])] = Value(first=name)

    def set_value(self, value: Value, position: int = 0) -> None:
        """Set an output to a value that exists."""
        self.values[int(self.op.outputs[position])] = value

    def activated(self, name: str) -> str:
        """Return a tensor behind the activation that is fused into the operator."""
        return activation(self, name, int(self.option("fusedActivationFunction", 0)))

    def is_first(self, position: int) -> bool:
        """Return whether an input is at hand with its channels first only."""
        value = self.value(position)
        return value.last is None and value.constant is None


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


# The numbers of the schema's ActivationFunctionType.
_NONE, _RELU, _RELU_N1_TO_1, _RELU6, _TANH = range(5)
_LIMITS = {_RELU_N1_TO_1: (-1.0, 1.0), _RELU6: (0.0, 6.0)}


def activation(operation: LiteOperator, name: str, function: int) -> str:
    """Return a tensor behind an activation.

    Args:
        operation: The operator that the activation is fused into.
        name: The tensor.
        function: The number of the schema's `ActivationFunctionType`.

    Raises:
        Untranslatable: The activation is that of binary networks (SIGN_BIT).
    """
    if function == _NONE:
        return name
    if function in _LIMITS:
        return clip(operation, name, *_LIMITS[function])
    if function == _RELU:
        return operation.emit("Relu", name)
    if function == _TANH:
        return operation.emit("Tanh", name)
    raise Untranslatable(f"with the fused activation {function}")


def clip(operation: LiteOperator, name: str, low: float, high: float) -> str:
    """Return a tensor whose values are limited to a range."""
    return operation.emit("Clip", name, operation.constant(low, "float32"), operation.constant(high, "float32"))


Translator = Callable[[LiteOperator], None]
_TRANSLATORS: dict[str, Translator] = {}


def translates(*names: str) -> Callable[[Translator], Translator]:
    """Register a translation of operators by their names in the schema."""

    def register(translator: Translator) -> Translator:
        for name in names:
            assert name not in _TRANSLATORS, name
            _TRANSLATORS[name] = translator
        return translator

    return register


def translator_of(name: str) -> Translator | None:
    """Return the translation of an operator, or None if there is none."""
    return _TRANSLATORS.get(name)
