"""What the layers of a functional Keras model do with factors of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgekit.core.numerics.channel_scales import ChannelGroups, Operation, Parameter
from edgekit.core.numerics.metrics import Array
from edgekit.sources._keras_structure import call

# Layers f with f(s x) = s f(x) for every s > 0, that keep each channel apart.
_HOMOGENEOUS = frozenset(("Dropout", "GaussianNoise", "LeakyReLU"))
# Those that compute across the axes between batch and channels.
_SPATIAL = frozenset(
    f"{kind}{rank}D"
    for kind in ("MaxPooling", "AveragePooling", "ZeroPadding", "UpSampling", "Cropping")
    for rank in (1, 2, 3)
)
_GLOBAL = frozenset(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3))
_RESHAPES = frozenset(("Flatten", "Reshape"))
_DENSE_CONVOLUTIONS = frozenset(("Conv1D", "Conv2D", "Conv3D"))


def channel_groups(model: Any) -> tuple[ChannelGroups, dict[str, Any]] | None:
    """Find the groups of channels of a model that may be scaled together.

    Args:
        model: The Keras model.

    Returns:
        The groups, and the model's symbolic tensors by the names of its operations; None for a subclassed model, which
        does not describe its graph.
    """
    import keras

    if not isinstance(model, (keras.Sequential, keras.Model)) or not getattr(model, "_nodes_by_depth", None):
        inner = getattr(model, "_functional", None)
        return None if inner is None else channel_groups(inner)
    reader = _Reader(model)
    operations = list(reader.operations())
    outputs = [reader.name(tensor) for tensor in model.outputs]
    return ChannelGroups.of(operations, outputs, reader.shared()), reader.tensors


class _Reader:
    """Turns layers into operations."""

    def __init__(self, model: Any) -> None:
        self.tensors: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._model = model
        self._parameters = {id(weight): f"{index}/{weight.path}" for index, weight in enumerate(model.weights)}
        self._calls: dict[int, int] = {}

    def name(self, tensor: Any) -> str:
        if id(tensor) not in self._names:
            name = f"tensor_{len(self._names)}"
            self._names[id(tensor)] = name
            self.tensors[name] = tensor
        return self._names[id(tensor)]

    def shared(self) -> Iterator[str]:
        """Yield the parameters of layers that are called more than once."""
        for layer in self._model.layers:
            if self._calls.get(id(layer), 0) > 1:
                yield from (self._parameters[id(weight)] for weight in layer.weights)

    def operations(self) -> Iterator[Operation]:
        """Yield the operations of the model in the order of computation."""
        for depth in sorted(self._model._nodes_by_depth, reverse=True):
            for node in self._model._nodes_by_depth[depth]:
                if node.input_tensors:
                    yield from self._node(node)

    def _node(self, node: Any) -> Iterator[Operation]:
        layer, (output, *others) = node.operation, node.outputs
        self._calls[id(layer)] = self._calls.get(id(layer), 0) + 1
        inputs = tuple(self.name(tensor) for tensor in node.input_tensors)
        shapes = tuple(_shape(tensor) for tensor in node.input_tensors)
        rule = _RULES.get(type(layer).__name__) if type(layer).__module__.startswith("keras.") else None
        linear = None
        if rule is not None and not others and None not in (*shapes, _shape(output)):
            linear = rule(self, layer, inputs, shapes, output)
        if linear is None:
            for tensor in node.outputs:
                yield Operation("opaque", inputs, self.name(tensor))
            return
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", "linear")
        if name == "linear" or type(layer).__name__ == "Activation":
            yield linear
        elif name == "relu":
            # A layer with ReLU is one tensor for the quantizer and for the graph: it keeps factors.
            yield linear
        else:
            # What the layer writes in front of its activation has no name in the model.
            yield Operation(linear.kind, linear.inputs, f"{linear.output}/linear", *_rest(linear))
            yield Operation("opaque", (f"{linear.output}/linear",), linear.output)

    def _parameter(self, weight: Any, axis: int) -> tuple[Parameter, ...]:
        return () if weight is None else (Parameter(self._parameters[id(weight)], axis),)

    def _of(self, kind: Any, inputs: Any, shapes: Any, output: Any, **details: Any) -> Operation:
        return Operation(kind, inputs, self.name(output), shapes, _shape(output) or (), **details)

    def _convolution(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        if layer.data_format != "channels_last" or layer.groups != 1:
            return None
        kernel, rank = layer.kernel, len(layer.kernel.shape)
        writes = self._parameter(kernel, rank - 1) + self._parameter(layer.bias, 0)
        reads = self._parameter(kernel, rank - 2)
        return self._of("weights", inputs, shapes, output, axis=-1, input_axis=-1, reads=reads, writes=writes)

    def _depthwise(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        if layer.data_format != "channels_last" or layer.depth_multiplier != 1:
            return None
        kernel = self._parameter(layer.kernel, len(layer.kernel.shape) - 2)  # (..., channels, 1)
        writes = kernel + self._parameter(layer.bias, 0)
        return self._of("weights", inputs, shapes, output, axis=-1, input_axis=-1, reads=kernel, writes=writes)

    def _dense(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        if layer.quantization_mode is not None or layer.lora_enabled:
            return None
        writes = self._parameter(layer.kernel, 1) + self._parameter(layer.bias, 0)
        reads = self._parameter(layer.kernel, 0)
        return self._of("weights", inputs, shapes, output, axis=-1, input_axis=-1, reads=reads, writes=writes)

    def _norm(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        rank = len(shapes[0])
        if layer.gamma is None or [axis % rank for axis in axes] != [rank - 1]:
            return None
        writes = self._parameter(layer.gamma, 0) + self._parameter(getattr(layer, "beta", None), 0)
        return self._of("weights", inputs, shapes, output, axis=-1, writes=writes)

    def _relu(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        is_plain = layer.max_value is None and layer.threshold == 0
        return self._of("same", inputs, shapes, output) if is_plain else None

    def _activation(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        is_plain = getattr(layer.activation, "__name__", "") in ("relu", "linear")
        return self._of("same", inputs, shapes, output) if is_plain else None

    def _same(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        return self._of("same", inputs, shapes, output)

    def _spatial(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return None
        axes = tuple(range(1, len(shapes[0]) - 1))
        return self._of("same", inputs, shapes, output, reduced=axes, keeps_axes=True)

    def _global(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        if layer.data_format != "channels_last":
            return None
        reduced = tuple(range(1, len(shapes[0]) - 1))
        return self._of("same", inputs, shapes, output, reduced=reduced, keeps_axes=layer.keepdims)

    def _sum(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        return self._of("sum", inputs, shapes, output)

    def _gate(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        return self._of("gate", inputs, shapes, output) if len(inputs) == 2 else None

    def _reshape(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        return self._of("reshape", inputs, shapes, output)

    def _permute(self, layer: Any, inputs: Any, shapes: Any, output: Any) -> Operation | None:
        return self._of("permute", inputs, shapes, output, order=(0, *layer.dims))


_Rule = Callable[[_Reader, Any, Any, Any, Any], Operation | None]
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_DENSE_CONVOLUTIONS, _Reader._convolution),
    **dict.fromkeys(_HOMOGENEOUS, _Reader._same),
    **dict.fromkeys(_SPATIAL, _Reader._spatial),
    **dict.fromkeys(_GLOBAL, _Reader._global),
    **dict.fromkeys(_RESHAPES, _Reader._reshape),
    "DepthwiseConv1D": _Reader._depthwise,
    "DepthwiseConv2D": _Reader._depthwise,
    "Dense": _Reader._dense,
    "BatchNormalization": _Reader._norm,
    "LayerNormalization": _Reader._norm,
    "ReLU": _Reader._relu,
    "Activation": _Reader._activation,
    "Add": _Reader._sum,
    "Multiply": _Reader._gate,
    "Permute": _Reader._permute,
}


def _rest(operation: Operation) -> tuple[Any, ...]:
    return (
        operation.input_shapes,
        operation.output_shape,
        operation.axis,
        operation.input_axis,
        operation.reads,
        operation.writes,
    )


def _shape(tensor: Any) -> tuple[int, ...] | None:
    """Return the shape for one sample, or None where another dimension than the batch is unknown."""
    shape = tuple(tensor.shape)
    return None if not shape or None in shape[1:] else (shape[0] or 1, *map(int, shape[1:]))


def measure(model: Any, tensors: Mapping[str, Any], axes: Mapping[str, int], calls: Any) -> dict[str, Array]:
    """Measure the largest absolute value of each channel.

    Args:
        model: The model.
        tensors: Its symbolic tensors by name.
        axes: The axis of the channels by the name of a tensor.
        calls: The inputs of each call.

    Returns:
        One array per tensor, of the length of its axis.
    """
    import keras
    import numpy as np

    names = list(axes)
    if not names:
        return {}
    probe = keras.Model(model.input, [tensors[name] for name in names])
    largest: dict[str, Array] = {}
    for inputs in calls:
        for name, result in zip(names, call(probe, inputs, ()), strict=True):
            rows = np.moveaxis(np.abs(np.asarray(result)), axes[name], 0).reshape(result.shape[axes[name]], -1).max(1)
            largest[name] = np.maximum(largest[name], rows) if name in largest else rows
    return largest
