"""Quantization-aware training of Keras 3 models: int8 rounding in the forward pass, and gradients that ignore it.

Keras 3 has no quantization-aware training of its own. Here the layers of an ordinary model compute with rounded weights
and activations for as long as a block runs; its variables stay float, and so does the model behind the block. Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (arXiv 1712.05877).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import InputError

if TYPE_CHECKING:
    import keras

# Levels of int8: weights are symmetric without -128, as TFLite and XNNPACK take them, activations have all of them.
_WEIGHT_LEVELS, _ACTIVATION_LEVELS = 127.0, 255.0
# How much of the range before a batch remains after it; as in Jacob et al., averages over some hundred batches.
_MOMENTUM = 0.99
# Below this a range is no range: a layer whose outputs are all zero.
_SMALLEST_RANGE = 1e-6
# Samples that the first ranges are taken from, and how many of them run at a time.
_SAMPLES, _BATCH = 256, 64

# By layer type: the attributes of its weights, and the axes along which each index has a scale of its own.
_WEIGHTS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Dense"), (("kernel", (-1,)),)),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), (("kernel", (-2, -1)),)),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose"), (("kernel", (-2,)),)),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), (("depthwise_kernel", (-2, -1)), ("pointwise_kernel", (-1,)))
    ),
    # Its output channels are wherever the equation puts them.
    "EinsumDense": (("kernel", ()),),
}
# Layers that select or move values: their outputs have the ranges of their inputs.
_PASSES_ON = frozenset(
    (
        *("Flatten", "Reshape", "Permute", "RepeatVector", "Identity", "Masking", "ActivityRegularization"),
        *(f"{kind}MaxPooling{rank}D" for kind in ("", "Global") for rank in (1, 2, 3)),
        *(
            f"{kind}{rank}D"
            for kind in ("ZeroPadding", "Cropping", "UpSampling", "SpatialDropout")
            for rank in (1, 2, 3)
        ),
        *("Dropout", "GaussianNoise", "GaussianDropout"),
        "InputLayer",  # models do not call it
    )
)
# What converters fuse into the layer before it.
_BATCH_NORM = "BatchNormalization"
_FUSED_ACTIVATIONS = frozenset(("relu", "relu6"))


class QuantizationAware:
    """The layers of a model while they compute with rounding.

    Attributes:
        layers: Names of the layers whose weights are rounded.
        activations: Names of the layers whose outputs are rounded.
    """

    def __init__(self, model: keras.Model, *, per_tensor: bool, learned_ranges: bool) -> None:
        """Find what is rounded; nothing changes yet.

        Args:
            model: The built model.
            per_tensor: Whether each weight has one scale, instead of one for each output channel.
            learned_ranges: Whether the ranges of activations are trained; otherwise they are moving averages.
        """
        self.model = model
        self._per_tensor, self._learned = per_tensor, learned_ranges
        self._observing = False
        self._ranges: dict[int, tuple[Any, Any]] = {}
        plain = [layer for layer in model._flatten_layers(include_self=False) if not _has_layers(layer)]
        self._weighted = [layer for layer in plain if type(layer).__name__ in _WEIGHTS]
        self._rounded = [layer for layer in plain if _ends_group(layer)]
        self.layers = tuple(layer.name for layer in self._weighted)
        self.activations = tuple(layer.name for layer in self._rounded)

    def install(self) -> None:
        """Let the layers compute with rounding; ranges have to be observed before they train."""
        import keras

        for layer in self._rounded:
            with contextlib.ExitStack() as stack:
                stack.enter_context(keras.name_scope(layer.name))
                low, high = (
                    keras.Variable(0.0, trainable=self._learned, name=f"{layer.name}_{end}") for end in ("low", "high")
                )
            self._ranges[id(layer)] = (low, high)
            if self._learned:  # the model's optimizer trains what its layers track
                _track(layer, (low, high))
        for layer in dict.fromkeys((*self._weighted, *self._rounded)):
            layer.call = self._wrapped(layer, layer.call)
        _forget_traces(self.model)

    def remove(self) -> None:
        """Make the layers ordinary ones again."""
        for layer in dict.fromkeys((*self._weighted, *self._rounded)):
            layer.__dict__.pop("call", None)
        if self._learned:
            for layer in self._rounded:
                _untrack(layer, self._ranges[id(layer)])
            # The optimizer has moments of the ranges, with which a saved model could not be loaded.
            self.model.optimizer, self.model.compiled = None, False
        _forget_traces(self.model)

    def observe(self, samples: Any) -> None:
        """Take the ranges of activations from samples, without rounding.

        Args:
            samples: What the model is called with: an array of shape (N, ...), or a list or dict of arrays.
        """
        self._observing = True
        try:
            for batch in _batches(samples):
                self.model(batch, training=False)
        finally:
            self._observing = False

    def _wrapped(self, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        weights, norm = _weights(layer), _folded_norm(layer)
        rounds_output = id(layer) in self._ranges

        def compute(*arguments: Any, **keywords: Any) -> Any:
            with contextlib.ExitStack() as stack:
                if weights and not self._observing:
                    stack.enter_context(_with_rounded(weights, norm, per_tensor=self._per_tensor))
                outputs = call(*arguments, **keywords)
            return self._rounded_output(layer, outputs) if rounds_output else outputs

        # Keras passes `training` and masks by the names in the signature.
        compute.__wrapped__ = call  # type: ignore[attr-defined]
        return compute

    def _rounded_output(self, layer: Any, outputs: Any) -> Any:
        from keras import ops

        if not _is_float_tensor(outputs):
            return outputs
        low, high = self._ranges[id(layer)]
        if self._observing:
            low.assign(ops.minimum(low, ops.min(outputs)))
            high.assign(ops.maximum(high, ops.max(outputs)))
            return outputs
        if layer._get_call_context().training and not self._learned:
            # An average of the extremes of batches, which always contains 0.
            for end, extreme in ((low, ops.minimum(ops.min(outputs), 0.0)), (high, ops.maximum(ops.max(outputs), 0.0))):
                end.assign(_MOMENTUM * end + (1 - _MOMENTUM) * ops.stop_gradient(ops.cast(extreme, end.dtype)))
        return fake_quantize(outputs, ops.convert_to_tensor(low), ops.convert_to_tensor(high))


def fake_quantize(values: Any, low: Any, high: Any) -> Any:
    """Round values to the 256 levels of a range, with 0 as one of them.

    The gradient passes straight through the rounding and is 0 outside of the range. With respect to the ends of the
    range it is that of learned step sizes (Esser et al., arXiv 1902.08153).

    Args:
        values: Tensor of any shape.
        low: The lowest value, at most 0.
        high: The highest value, at least 0.

    Returns:
        A tensor of the same shape.
    """
    from keras import ops

    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    scale = ops.maximum(high - low, _SMALLEST_RANGE) / _ACTIVATION_LEVELS
    zero_point = _round(-low / scale)
    levels = ops.clip(_round(values / scale) + zero_point, 0.0, _ACTIVATION_LEVELS)
    return (levels - zero_point) * scale


def _round(values: Any) -> Any:
    """Round to integers; the gradient is that of the values themselves."""
    from keras import ops

    return values + ops.stop_gradient(ops.round(values) - values)


def _rounded_weight(weight: Any, axes: tuple[int, ...], factor: Any) -> Any:
    """Return a weight rounded to int8 as it is behind a batch norm that multiplies its channels by a factor."""
    from keras import ops

    folded = weight if factor is None else weight * factor
    kept = {axis % len(folded.shape) for axis in axes}
    reduced = tuple(axis for axis in range(len(folded.shape)) if axis not in kept)
    largest = ops.max(ops.abs(folded), axis=reduced, keepdims=True)
    scale = ops.stop_gradient(ops.maximum(largest, _SMALLEST_RANGE) / _WEIGHT_LEVELS)
    rounded = ops.clip(_round(folded / scale), -_WEIGHT_LEVELS, _WEIGHT_LEVELS) * scale
    return rounded if factor is None else rounded / factor


@contextlib.contextmanager
def _with_rounded(weights: list[tuple[Any, tuple[int, ...]]], norm: Any, *, per_tensor: bool) -> Iterator[None]:
    """Let variables have rounded values within the block."""
    import keras
    from keras import ops

    mapping = []
    for index, (variable, axes) in enumerate(weights):
        factor = None
        if norm is not None and index == len(weights) - 1:  # of a separable convolution the last one is followed
            factor = _norm_factor(norm, variable, axes)
        scales = () if per_tensor else axes
        mapping.append((variable, _rounded_weight(ops.convert_to_tensor(variable), scales, factor)))
    with keras.StatelessScope(state_mapping=mapping):
        yield


def _norm_factor(norm: Any, variable: Any, axes: tuple[int, ...]) -> Any:
    """Return what a batch norm multiplies each output channel by, in a shape that broadcasts against the weight."""
    from keras import ops

    factor = ops.rsqrt(ops.convert_to_tensor(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        factor = factor * ops.convert_to_tensor(norm.gamma)
    # A channel that the norm sets to 0 has no weight to round.
    factor = ops.where(ops.abs(factor) < _SMALLEST_RANGE, ops.ones_like(factor), factor)
    rank = len(variable.shape)
    kept = {axis % rank for axis in axes}
    shape = [size if axis in kept else 1 for axis, size in enumerate(variable.shape)]
    return ops.stop_gradient(ops.reshape(factor, shape))


def _weights(layer: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """Return the variables of a layer's weights, with the axes of their output channels."""
    found = []
    for attribute, axes in _WEIGHTS.get(type(layer).__name__, ()):
        variable = getattr(layer, f"_{attribute}", None)  # `kernel` is a property of some layers
        variable = getattr(layer, attribute) if variable is None else variable
        found.append((variable, axes))
    return found


def _has_layers(layer: Any) -> bool:
    return len(list(layer._flatten_layers(include_self=False))) > 0


def _followers(layer: Any) -> list[Any]:
    """Return the layers that read a layer's output in the graph of a functional or sequential model."""
    return [node.operation for node in getattr(layer, "_outbound_nodes", ())]


def _only_follower(layer: Any) -> Any:
    followers = _followers(layer)
    return followers[0] if len(followers) == 1 else None


def _is_linear(layer: Any) -> bool:
    """Return whether a layer applies no activation of its own."""
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"


def _folded_norm(layer: Any) -> Any:
    """Return the batch norm that converters fold into a layer, or None."""
    follower = _only_follower(layer)
    # An EinsumDense has its output channels wherever its equation puts them.
    foldable = bool(_WEIGHTS.get(type(layer).__name__, ((None, ()),))[-1][1]) and _is_linear(layer)
    folds = foldable and follower is not None and type(follower).__name__ == _BATCH_NORM
    return follower if folds else None


def _is_fused_activation(layer: Any) -> bool:
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    plain = type(layer).__name__ == "ReLU" and not (layer.negative_slope or layer.threshold)
    return plain or (type(layer).__name__ == "Activation" and name in _FUSED_ACTIVATIONS)


def _ends_group(layer: Any) -> bool:
    """Return whether the output of a layer is a tensor of the converted file, and not inside a fused operator."""
    if type(layer).__name__ in _PASSES_ON:
        return False
    follower = _only_follower(layer)
    if follower is None or not _is_linear(layer):
        return True
    return not _is_fused_activation(follower) and _folded_norm(layer) is None


def _is_float_tensor(value: Any) -> bool:
    import keras

    return hasattr(value, "dtype") and "float" in keras.backend.standardize_dtype(value.dtype)


def _track(layer: Any, variables: tuple[Any, ...]) -> None:
    layer._tracker.unlock()  # a built layer takes no further variables otherwise
    for variable in variables:
        layer._track_variable(variable)
    layer._tracker.lock()


def _untrack(layer: Any, variables: tuple[Any, ...]) -> None:
    layer._tracker.unlock()
    for variable in variables:
        layer._untrack_variable(variable)
    layer._tracker.lock()


def _forget_traces(model: Any) -> None:
    """Drop the compiled functions of a model, which hold the computation of before."""
    for name in ("train_function", "test_function", "predict_function"):
        setattr(model, name, None)


def _batches(samples: Any) -> Iterator[Any]:
    """Yield the first samples in batches."""
    import keras

    count = min(_SAMPLES, *(len(array) for array in keras.tree.flatten(samples)))
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        yield keras.tree.map_structure(lambda array, part=slice(start, stop): np.asarray(array[part]), samples)


@contextlib.contextmanager
def quantization_aware(
    model: keras.Model, samples: Any, *, per_tensor: bool = False, learned_ranges: bool = False
) -> Iterator[QuantizationAware]:
    """Let a Keras model compute with int8 rounding within a block, in which it is trained.

    Args:
        model: The trained, built model. Compile it within the block.
        samples: Inputs that the first ranges of activations are taken from, of shape (N, ...).
        per_tensor: Whether each weight has one scale, instead of one for each output channel.
        learned_ranges: Whether the ranges of activations are trained; otherwise they are moving averages.

    Yields:
        What is rounded. Behind the block the model is an ordinary float model with the weights as they are then.

    Raises:
        InputError: The model is not built, or has no layer whose weights can be rounded.
    """
    if not model.built:
        raise InputError("quantization-aware training needs a built model: call it once, or give it an input shape")
    aware = QuantizationAware(model, per_tensor=per_tensor, learned_ranges=learned_ranges)
    if not aware.layers:
        raise InputError("this model has no convolution or dense layer, so int8 rounding has nothing to train")
    aware.install()
    try:
        aware.observe(samples)
        yield aware
    finally:
        aware.remove()
