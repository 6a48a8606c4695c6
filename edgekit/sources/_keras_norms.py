"""The statistics in front of the batch norms of a Keras model, compared with those of its training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.norm_matching import LEAST_VARIANCE

# The inputs of each call of a model.
Calls = Sequence[Sequence[Array]]


def compiled(run: Callable[..., object]) -> Callable[[Calls], tuple[float, int, list[list[Array]]]]:
    """Compile the comparison of what enters a model's batch norms with their moving statistics.

    A graph leaves out the gradients of weights, which are half of the time; the eager tape computes them.

    Args:
        run: Calls the model with tensors.

    Returns:
        A function that takes the inputs of each call, whose statistics are computed together. It returns the loss that
        `NormGradient` defines, the number of batch norms, and its gradient by each input of each call.
    """
    import tensorflow as tf

    norms: dict[int, tuple[Any, list[Any]]] = {}

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def evaluate(tensors: Any) -> Any:
        norms.clear()
        with tf.GradientTape(watch_accessed_variables=False) as tape, _recorded(norms):
            tape.watch(tensors)
            for call in tensors:
                run(*call)
            loss = tf.add_n([_loss(*norm) for norm in norms.values()]) / len(norms) if norms else tf.constant(0.0)
        return loss, tape.gradient(loss, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def norm_gradient(calls: Calls) -> tuple[float, int, list[list[Array]]]:
        loss, slopes = evaluate([[tf.convert_to_tensor(array) for array in call] for call in calls])
        return float(loss), len(norms), [[np.asarray(slope) for slope in call] for call in slopes]

    return norm_gradient


@contextlib.contextmanager
def _recorded(norms: dict[int, tuple[Any, list[Any]]]) -> Iterator[None]:
    """Record batch norms and their inputs, by the layer's id, while the block runs."""
    import keras

    original = keras.layers.BatchNormalization.call

    def recording(layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        norms.setdefault(id(layer), (layer, []))[1].append(inputs)
        return original(layer, inputs, *args, **kwargs)

    # Keras has no hook on calls, and a subclassed model has no graph from which a model of inner outputs could be cut.
    keras.layers.BatchNormalization.call = recording
    try:
        yield
    finally:
        keras.layers.BatchNormalization.call = original


def _loss(layer: Any, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    mean, variance = (tf.convert_to_tensor(value) for value in (layer.moving_mean, layer.moving_variance))
    mean, variance = tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)
    count, total, squares = 0.0, 0.0, 0.0
    for x in inputs:
        axis = layer.axis % len(x.shape)
        others = [index for index in range(len(x.shape)) if index != axis]
        shape = [-1 if index == axis else 1 for index in range(len(x.shape))]
        # Deviations from the moving mean: differences of large sums would cost all digits.
        deviation = tf.cast(x, tf.float32) - tf.reshape(mean, shape)
        count += tf.cast(tf.size(x) / tf.shape(x)[axis], tf.float32)
        total += tf.reduce_sum(deviation, others)
        squares += tf.reduce_sum(deviation**2, others)
    gap = total / count
    found = tf.maximum(squares / count - gap**2 + layer.epsilon, LEAST_VARIANCE)
    running = tf.maximum(variance + layer.epsilon, LEAST_VARIANCE)
    return tf.reduce_mean(gap**2 / running + (tf.sqrt(found / running) - 1) ** 2)
