"""Steps in front of the inputs of a TensorFlow function."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.core.values.preprocessing import Preprocessing


def preprocess(item: Preprocessing, x: Any, dtype: str) -> Any:
    """Return the model's own input.

    Args:
        item: The steps.
        x: The application's images, as a tensor.
        dtype: The floating-point type to compute in.
    """
    import tensorflow as tf

    x = tf.cast(x, dtype)
    if item.layout == "NCHW":
        x = tf.transpose(x, (0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C)
    if item.resize is not None:
        # tf.image.resize computes in float32 whatever its input is; half-pixel centres, no antialiasing.
        x = tf.cast(tf.image.resize(x, item.resize, method="bilinear"), dtype)
    if item.offsets is not None and item.crop is not None:
        (top, left), (height, width) = item.offsets, item.crop
        x = x[:, top : top + height, left : left + width, :]
    if item.mixes:
        # All steps that change channels: in int8 each row of its weights has a scale of its own.
        kernel = np.asarray(item.matrix().T[None, None], dtype)  # (1, 1, channels of the image, channels of the model)
        x = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), np.asarray(item.bias(), dtype))
    return tf.transpose(x, (0, 3, 1, 2)) if item.spec.layout == "NCHW" else x
