"""What the operators of a PyTorch module do with factors of channels, read from the graph of torch.export."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.numerics.channel_scales import Operation, Parameter
from edgekit.core.numerics.metrics import Array

# Operators f with f(s x) = s f(x) for every s > 0, that keep each channel apart.
_HOMOGENEOUS = frozenset(
    ("relu", "relu_", "leaky_relu", "leaky_relu_", "dropout", "dropout_", "clone", "contiguous", "detach", "alias")
)
# Those that compute across the last one, two or three axes.
_SPATIAL = re.compile(r"(?:max_pool|avg_pool|adaptive_avg_pool|adaptive_max_pool|upsample_nearest)([123])d")
_RESHAPES = frozenset(("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "_unsafe_view"))
_REDUCTIONS = frozenset(("mean", "amax", "sum"))


@dataclass(frozen=True)
class ChannelGraph:
    """The operations of a module.

    Attributes:
        operations: The operations in the order of computation.
        outputs: The names of the output tensors.
        shared: The names of parameters that are used more than once.
        program: The exported program; its nodes have the names of tensors.
    """

    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    shared: frozenset[str]
    program: Any


def channel_graph(module: Any, examples: tuple[Any, ...]) -> ChannelGraph:
    """Read the operations of a module.

    Args:
        module: The module in eval mode.
        examples: One tensor per input.

    Returns:
        The graph. What it does not know is opaque.
    """
    import torch

    with torch.no_grad():
        program = torch.export.export(module, examples)
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = list(program.graph.nodes)
    reader = _Reader(names)
    operations = tuple(reader.operation(node) for node in nodes if node.op == "call_function")
    return ChannelGraph(
        operations,
        tuple(node.name for argument in nodes[-1].args[0] if (node := argument) is not None),
        frozenset(_shared(nodes, names, module)),
        program,
    )


def _shared(nodes: Sequence[Any], names: Mapping[str, str], module: Any) -> set[str]:
    """Return the parameters with several readers, and those whose memory another one shares."""
    shared = {
        names[node.name] for node in nodes if node.op == "placeholder" and node.name in names and len(node.users) > 1
    }
    owners: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.numel():
            owners.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return shared | {name for group in owners.values() if len(group) > 1 for name in group}


class _Reader:
    """Turns nodes into operations."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def operation(self, node: Any) -> Operation:
        operator = _operator(node)
        rule = _RULES.get(operator)
        if rule is None and operator in _HOMOGENEOUS:
            rule = _Reader._same
        if rule is None and _SPATIAL.fullmatch(operator):
            rule = _Reader._spatial
        if rule is None and operator in _RESHAPES:
            rule = _Reader._reshape
        if rule is None and operator in _REDUCTIONS:
            rule = _Reader._reduction
        found = None if rule is None else rule(self, node)
        return found or self._opaque(node)

    def _tensors(self, node: Any) -> tuple[Any, ...]:
        return tuple(value for value in node.all_input_nodes if value.name not in self._names)

    def _parameter(self, argument: Any, axis: int) -> tuple[Parameter, ...]:
        """Return the axis of a parameter, or nothing where the argument is absent."""
        return () if argument is None else (Parameter(self._names[argument.name], axis),)

    def _are_parameters(self, *arguments: Any) -> bool:
        return all(argument is None or getattr(argument, "name", None) in self._names for argument in arguments)

    @staticmethod
    def _argument(node: Any, index: int, name: str, default: Any = None) -> Any:
        return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)

    def _opaque(self, node: Any) -> Operation:
        return Operation("opaque", tuple(value.name for value in self._tensors(node)), node.name)

    def _of(self, kind: Any, node: Any, inputs: Sequence[Any], **details: Any) -> Operation:
        shapes = tuple(_shape(value) for value in inputs)
        return Operation(kind, tuple(value.name for value in inputs), node.name, shapes, _shape(node), **details)

    def _linear(self, node: Any) -> Operation | None:
        x, weight, bias = node.args[0], node.args[1], self._argument(node, 2, "bias")
        if not self._are_parameters(weight, bias) or x.name in self._names:
            return None
        writes = self._parameter(weight, 0) + self._parameter(bias, 0)
        return self._of("weights", node, (x,), input_axis=-1, reads=self._parameter(weight, 1), writes=writes)

    def _convolution(self, node: Any) -> Operation | None:
        x, weight, bias = node.args[0], node.args[1], self._argument(node, 2, "bias")
        if not self._are_parameters(weight, bias) or x.name in self._names or isinstance(node.args[-1], str):
            return None
        groups, channels = self._argument(node, 6, "groups", 1), _shape(x)[1]
        writes = self._parameter(weight, 0) + self._parameter(bias, 0)
        common = {"axis": 1, "input_axis": 1, "writes": writes}
        if groups == 1:
            return self._of("weights", node, (x,), reads=self._parameter(weight, 1), **common)
        if groups == channels:
            repeats = _shape(weight)[0] // channels
            return self._of("weights", node, (x,), reads=self._parameter(weight, 0), repeats=repeats, **common)
        return self._of("weights", node, (x,), **common)

    def _batch_norm(self, node: Any) -> Operation | None:
        x, weight, bias = node.args[:3]
        if weight is None or bias is None or not self._are_parameters(weight, bias) or node.args[5]:
            return None
        writes = self._parameter(weight, 0) + self._parameter(bias, 0)
        return self._of("weights", node, (x,), axis=1, writes=writes)

    def _layer_norm(self, node: Any) -> Operation | None:
        x, shape = node.args[:2]
        weight, bias = self._argument(node, 2, "weight"), self._argument(node, 3, "bias")
        if len(shape) != 1 or weight is None or not self._are_parameters(weight, bias):
            return None
        return self._of("weights", node, (x,), axis=-1, writes=self._parameter(weight, 0) + self._parameter(bias, 0))

    def _rms_norm(self, node: Any) -> Operation | None:
        x, shape, weight = node.args[0], node.args[1], self._argument(node, 2, "weight")
        if len(shape) != 1 or weight is None or not self._are_parameters(weight):
            return None
        return self._of("weights", node, (x,), axis=-1, writes=self._parameter(weight, 0))

    def _group_norm(self, node: Any) -> Operation | None:
        x, weight, bias = node.args[0], self._argument(node, 2, "weight"), self._argument(node, 3, "bias")
        if weight is None or not self._are_parameters(weight, bias):
            return None
        return self._of("weights", node, (x,), axis=1, writes=self._parameter(weight, 0) + self._parameter(bias, 0))

    def _same(self, node: Any) -> Operation | None:
        return self._of("same", node, (node.args[0],))

    def _spatial(self, node: Any) -> Operation | None:
        rank = len(_shape(node.args[0]))
        match = _SPATIAL.fullmatch(_operator(node))
        assert match is not None  # operation() has matched it
        axes = tuple(range(rank - int(match[1]), rank))
        return self._of("same", node, (node.args[0],), reduced=axes, keeps_axes=True)

    def _add(self, node: Any) -> Operation | None:
        first, second = node.args[:2]
        if not (hasattr(first, "name") and hasattr(second, "name")) or node.kwargs.get("alpha", 1) != 1:
            return None  # a constant has no factor
        if self._are_parameters(first, second):
            return None
        if self._are_parameters(first) or self._are_parameters(second):
            x, parameter = (second, first) if self._are_parameters(first) else (first, second)
            shape = _shape(parameter)
            if len(shape) != len(_shape(x)) or str(node.target).startswith("aten.sub"):
                return None
            # The channels of a table of positions come last; if they do not, the axis does not match theirs.
            axis = max((index for index, size in enumerate(shape) if size > 1), default=None)
            if axis is None:
                return None
            return self._of("same", node, (x,), writes=self._parameter(parameter, axis), axis=axis)
        return self._of("sum", node, (first, second))

    def _multiply(self, node: Any) -> Operation | None:
        first, second = node.args[:2]
        if isinstance(second, (int, float)) and second > 0:
            return self._of("same", node, (first,))
        if not hasattr(second, "name") or not hasattr(first, "name") or first is second:
            return None
        return (
            None
            if self._are_parameters(first) or self._are_parameters(second)
            else self._of("gate", node, (first, second))
        )

    def _reshape(self, node: Any) -> Operation | None:
        return self._of("reshape", node, (node.args[0],))

    def _permute(self, node: Any) -> Operation | None:
        rank = len(_shape(node.args[0]))
        return self._of("permute", node, (node.args[0],), order=tuple(axis % rank for axis in node.args[1]))

    def _transpose(self, node: Any) -> Operation | None:
        order = list(range(len(_shape(node.args[0]))))
        first, second = node.args[1:3]
        order[first], order[second] = order[second], order[first]
        return self._of("permute", node, (node.args[0],), order=tuple(order))

    def _reduction(self, node: Any) -> Operation | None:
        axes, rank = self._argument(node, 1, "dim"), len(_shape(node.args[0]))
        if axes is None or axes == []:
            return None
        axes = tuple(axis % rank for axis in (axes if isinstance(axes, (list, tuple)) else [axes]))
        kept = len(_shape(node)) == rank
        return self._of("same", node, (node.args[0],), reduced=axes, keeps_axes=kept)


_RULES: Mapping[str, Callable[[_Reader, Any], Operation | None]] = {
    "linear": _Reader._linear,
    "conv1d": _Reader._convolution,
    "conv2d": _Reader._convolution,
    "conv3d": _Reader._convolution,
    "batch_norm": _Reader._batch_norm,
    "layer_norm": _Reader._layer_norm,
    "rms_norm": _Reader._rms_norm,
    "group_norm": _Reader._group_norm,
    "add": _Reader._add,
    "add_": _Reader._add,
    "sub": _Reader._add,
    "mul": _Reader._multiply,
    "mul_": _Reader._multiply,
    "permute": _Reader._permute,
    "transpose": _Reader._transpose,
}


def _operator(node: Any) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if hasattr(value, "shape") else ()


def measure(graph: ChannelGraph, axes: Mapping[str, int], calls: Sequence[tuple[Any, ...]]) -> dict[str, Array]:
    """Measure the largest absolute value of each channel.

    Args:
        graph: The graph.
        axes: The axis of the channels by the name of a tensor.
        calls: The inputs of each call.

    Returns:
        One array per tensor, of the length of its axis.
    """
    import torch

    module = graph.program.module(check_guards=False)
    largest: dict[str, Array] = {}

    class RangeRecorder(torch.fx.Interpreter):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if node.name in axes:
                rows = result.detach().movedim(axes[node.name], 0).abs().flatten(1).amax(1).numpy()
                known = largest.get(node.name)
                largest[node.name] = rows.copy() if known is None else np.maximum(known, rows)
            return result

    with torch.no_grad():
        for call in calls:
            RangeRecorder(module).run(*call)
    return largest
