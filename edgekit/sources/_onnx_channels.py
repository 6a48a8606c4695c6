"""What the nodes of an ONNX graph do with factors of channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgekit.core.numerics.channel_scales import ChannelGroups, Operation, Parameter
from edgekit.core.numerics.metrics import Array

# Operators f with f(s x) = s f(x) for every s > 0, that keep each channel apart.
_HOMOGENEOUS = ("Relu", "LeakyRelu", "Identity", "Dropout")
# Those that compute across the axes behind the channels, which are the second axis.
_SPATIAL = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")

Shapes = Mapping[str, tuple[int, ...]]


def channel_groups(model: Any, shapes: Shapes) -> ChannelGroups | None:
    """Find the groups of channels of a model that may be scaled together.

    Args:
        model: The `ModelProto`.
        shapes: The shapes of all tensors for one call.

    Returns:
        The groups; None for a model with control flow, whose inner graphs read outer tensors unseen.
    """
    from onnx import AttributeProto

    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    nodes = list(model.graph.node)
    if any(attribute.type in graphs for node in nodes for attribute in node.attribute):
        return None
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    reader = _Reader(constants, shapes)
    operations = [operation for node in nodes for operation in reader.operations(node)]
    reads = Counter(name for node in nodes for name in node.input if name in constants)
    outputs = [value.name for value in model.graph.output]
    shared = [name for name, count in reads.items() if count > 1] + outputs
    return ChannelGroups.of(operations, outputs, shared)


class _Reader:
    """Turns nodes into operations."""

    def __init__(self, constants: Shapes, shapes: Shapes) -> None:
        self._constants, self._shapes = constants, shapes

    def operations(self, node: Any) -> list[Operation]:
        inputs = tuple(name for name in node.input if name and name not in self._constants)
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        used = [name for name in node.output if name]
        known = all(name in self._shapes for name in (*inputs, *used[:1]))
        found = rule(self, node) if rule is not None and used and known else None
        return [found] if found is not None else [Operation("opaque", inputs, name) for name in used]

    def _of(self, kind: Any, node: Any, inputs: tuple[str, ...], **details: Any) -> Operation:
        shapes = tuple(self._shapes[name] for name in inputs)
        return Operation(kind, inputs, node.output[0], shapes, self._shapes[node.output[0]], **details)

    def _parameters(self, *uses: tuple[str, int]) -> tuple[Parameter, ...] | None:
        """Return axes of initializers; None where one of the names is a computed tensor."""
        if any(name and name not in self._constants for name, _ in uses):
            return None
        return tuple(Parameter(name, axis) for name, axis in uses if name)

    def _weights(self, node: Any, reads: Any, writes: Any, **details: Any) -> Operation | None:
        if reads is None or writes is None or node.input[0] in self._constants:
            return None
        return self._of("weights", node, (node.input[0],), reads=reads, writes=writes, **details)

    def _convolution(self, node: Any) -> Operation | None:
        x, weight = node.input[:2]
        if x in self._constants or weight not in self._constants:
            return None
        channels, groups = self._shapes[x][1], _attribute(node, "group", 1)
        bias = node.input[2] if len(node.input) > 2 else ""
        writes = self._parameters((weight, 0), (bias, 0))
        common = {"axis": 1, "input_axis": 1}
        if groups == 1:
            return self._weights(node, self._parameters((weight, 1)), writes, **common)
        if groups == channels:
            repeats = self._constants[weight][0] // channels
            return self._weights(node, self._parameters((weight, 0)), writes, repeats=repeats, **common)
        return self._weights(node, (), writes, **common)

    def _gemm(self, node: Any) -> Operation | None:
        if _attribute(node, "transA", 0) or _attribute(node, "alpha", 1.0) != 1 or _attribute(node, "beta", 1.0) != 1:
            return None
        transposed = _attribute(node, "transB", 0)
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and len(self._constants.get(bias, ())) != 1:
            return None
        writes = self._parameters((node.input[1], 0 if transposed else 1), (bias, 0))
        return self._weights(node, self._parameters((node.input[1], 1 if transposed else 0)), writes, input_axis=1)

    def _matmul(self, node: Any) -> Operation | None:
        weight = node.input[1]
        if len(self._constants.get(weight, ())) != 2:
            return None
        return self._weights(node, self._parameters((weight, 0)), self._parameters((weight, 1)))

    def _batch_norm(self, node: Any) -> Operation | None:
        return self._weights(node, (), self._parameters((node.input[1], 0), (node.input[2], 0)), axis=1)

    def _layer_norm(self, node: Any) -> Operation | None:
        bias = node.input[2] if len(node.input) > 2 else ""
        if len(self._constants.get(node.input[1], ())) != 1 or len(node.output) > 1:
            return None
        return self._weights(node, (), self._parameters((node.input[1], 0), (bias, 0)))

    def _same(self, node: Any) -> Operation | None:
        return None if node.input[0] in self._constants else self._of("same", node, (node.input[0],))

    def _spatial(self, node: Any) -> Operation | None:
        axes = tuple(range(2, len(self._shapes[node.input[0]])))
        return self._of("same", node, (node.input[0],), reduced=axes, keeps_axes=True)

    def _mean(self, node: Any) -> Operation | None:
        # Which axes are gone is seen from the shapes; they may come from a tensor.
        before, after = self._shapes[node.input[0]], self._shapes[node.output[0]]
        axes = _attribute(node, "axes", None)
        if axes is None or node.input[0] in self._constants:
            return None
        reduced = tuple(axis % len(before) for axis in axes)
        return self._of("same", node, (node.input[0],), reduced=reduced, keeps_axes=len(before) == len(after))

    def _add(self, node: Any) -> Operation | None:
        constant = [name for name in node.input if name in self._constants]
        if not constant:
            return self._of("sum", node, tuple(node.input))
        if len(constant) == 2:
            return None
        (x,) = (name for name in node.input if name not in self._constants)
        rank, shape = len(self._shapes[x]), self._constants[constant[0]]
        wide = [axis for axis, size in enumerate(shape) if size > 1]
        if not wide or self._shapes[x] != self._shapes[node.output[0]]:
            return None
        # Shapes are aligned at their ends. The channels of a table of positions come last.
        axis = wide[-1]
        return self._of("same", node, (x,), writes=(Parameter(constant[0], axis),), axis=rank - len(shape) + axis)

    def _multiply(self, node: Any) -> Operation | None:
        if any(name in self._constants for name in node.input):
            return None
        return self._of("gate", node, tuple(node.input))

    def _reshape(self, node: Any) -> Operation | None:
        return None if node.input[0] in self._constants else self._of("reshape", node, (node.input[0],))

    def _transpose(self, node: Any) -> Operation | None:
        rank = len(self._shapes[node.input[0]])
        order = _attribute(node, "perm", None) or list(reversed(range(rank)))
        return self._of("permute", node, (node.input[0],), order=tuple(order))


_RULES: Mapping[str, Callable[[_Reader, Any], Operation | None]] = {
    **dict.fromkeys(_HOMOGENEOUS, _Reader._same),
    **dict.fromkeys(_SPATIAL, _Reader._spatial),
    **dict.fromkeys(_RESHAPES, _Reader._reshape),
    "Conv": _Reader._convolution,
    "Gemm": _Reader._gemm,
    "MatMul": _Reader._matmul,
    "BatchNormalization": _Reader._batch_norm,
    "LayerNormalization": _Reader._layer_norm,
    "ReduceMean": _Reader._mean,
    "Add": _Reader._add,
    "Mul": _Reader._multiply,
    "Transpose": _Reader._transpose,
}


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def with_outputs(model: Any, names: list[str] | None = None) -> Any:
    """Return a copy of a model whose outputs are inner tensors.

    Args:
        model: The `ModelProto`.
        names: The names of the tensors; None for all that nodes compute.

    Returns:
        The copy.
    """
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    typed = {value.name: value for value in model.graph.output}
    if names is None:
        names = [name for node in model.graph.node for name in node.output if name]
    del copied.graph.output[:]
    # ONNX Runtime infers the types of outputs that have none.
    copied.graph.output.extend(typed.get(name) or onnx.ValueInfoProto(name=name) for name in names)
    return copied


def channel_range(values: Array, axis: int) -> Array:
    """Return the largest absolute value of each entry of an axis."""
    largest: Array = np.moveaxis(np.abs(values), axis, 0).reshape(values.shape[axis], -1).max(axis=1)
    return largest
