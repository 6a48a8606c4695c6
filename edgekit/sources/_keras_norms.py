"""The statistics in front of the batch norms of a Keras model, compared with those of its training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array

# The least variance whose root has a finite slope.
_LEAST_VARIANCE = 1e-12


def norm_gradient(run: Callable[..., object], calls: Sequence[Sequence[Array]]) -> tuple[float, int, list[list[Array]]]:
    """Run a model and compare what enters its batch norms with their moving statistics.

    Args:
        run: Calls the model with tensors.
        calls: The inputs of each call; the statistics are those of all calls together.

    Returns:
        The loss that `NormGradient` defines, the number of batch norms, and its gradient by each input of each call.
    """
    import tensorflow as tf

    tensors = [[tf.convert_to_tensor(array) for array in call] for call in calls]
    with tf.GradientTape() as tape, _recorded() as norms:
        tape.watch(tensors)
        for call in tensors:
            run(*call)
        loss = tf.add_n([_loss(*norm) for norm in norms.values()]) / len(norms) if norms else tf.constant(0.0)
    slopes = tape.gradient(loss, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return float(loss), len(norms), [[np.asarray(slope) for slope in call] for call in slopes]


@contextlib.contextmanager
def _recorded() -> Iterator[dict[int, tuple[Any, list[Any]]]]:
    """Record the inputs of batch norms while the block runs.

    Yields:
        A dictionary that the block fills: the layer and its inputs, by the layer's id.
    """
    import keras
    import tensorflow as tf

    norms: dict[int, tuple[Any, list[Any]]] = {}
    original = keras.layers.BatchNormalization.call

    def recording(layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        norms.setdefault(id(layer), (layer, []))[1].append(inputs)
        return original(layer, inputs, *args, **kwargs)

    eager = tf.config.functions_run_eagerly()
    # A layer inside a function of the user's would be recorded as a symbol of that function's graph.
    tf.config.run_functions_eagerly(True)
    # Keras has no hook on calls, and a subclassed model has no graph from which a model of inner outputs could be cut.
    keras.layers.BatchNormalization.call = recording
    try:
        yield norms
    finally:
        keras.layers.BatchNormalization.call = original
        tf.config.run_functions_eagerly(eager)


def _loss(layer: Any, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    mean, variance = (tf.convert_to_tensor(value) for value in (layer.moving_mean, layer.moving_variance))
    mean, variance = tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)
    count, total, squares = 0, 0.0, 0.0
    for x in inputs:
        axis = layer.axis % len(x.shape)
        order = [index for index in range(len(x.shape)) if index != axis] + [axis]
        # Deviations from the moving mean: differences of large sums would cost all digits.
        deviation = tf.reshape(tf.transpose(tf.cast(x, tf.float32), order), (-1, x.shape[axis])) - mean
        count += int(deviation.shape[0])
        total += tf.reduce_sum(deviation, 0)
        squares += tf.reduce_sum(deviation**2, 0)
    gap = total / count
    found = tf.maximum(squares / count - gap**2 + layer.epsilon, _LEAST_VARIANCE)
    running = tf.maximum(variance + layer.epsilon, _LEAST_VARIANCE)
    return tf.reduce_mean(gap**2 / running + (tf.sqrt(found / running) - 1) ** 2)
