"""Keras models of the networks with published timings; weights are random, since latency does not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The input of ImageNet networks: height, width, channels.
IMAGE = (224, 224, 3)
_SEED = 0
# Ranges only have to exist: 32 samples keep the conversion short.
CALIBRATION_SAMPLES = 32

# A network's name in tables of timings -> the function in this module that builds it.
PUBLISHED_AS = {"mobilenet_v1_1.0": "mobilenet_v1", "mobilenet_v2_1.0": "mobilenet_v2"}


def mobilenet_v1() -> Any:
    """Build MobileNet 1.0, 224x224x3 to 1000 classes (Howard and others, arXiv 1704.04861)."""
    import keras

    keras.utils.set_random_seed(_SEED)
    return keras.applications.MobileNet(input_shape=IMAGE, weights=None)


def mobilenet_v2() -> Any:
    """Build MobileNetV2 1.0, 224x224x3 to 1000 classes (Sandler and others, arXiv 1801.04381)."""
    import keras

    keras.utils.set_random_seed(_SEED)
    return keras.applications.MobileNetV2(input_shape=IMAGE, weights=None)


# The name of a benchmark of MLPerf Tiny -> the function in this module that builds its network.
TINY = {"ad": "tiny_autoencoder", "ic": "tiny_resnet8", "kws": "tiny_ds_cnn", "vww": "tiny_mobilenet_v1_025"}


def _conv_block(x: Any, filters: int, kernel: int | tuple[int, int], stride: int = 1, depthwise: bool = False) -> Any:
    """Apply a convolution, batch normalization and ReLU."""
    from keras import layers

    convolution = (
        layers.DepthwiseConv2D(kernel, stride, "same") if depthwise else layers.Conv2D(filters, kernel, stride, "same")
    )
    return layers.ReLU()(layers.BatchNormalization()(convolution(x)))


def tiny_autoencoder() -> Any:
    """Build MLPerf Tiny's anomaly detection: 640 features, dense layers of 128 and 8 (Banbury, arXiv 2106.07597)."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(_SEED)
    x = inputs = keras.Input((640,))
    for width in (*[128] * 4, 8, *[128] * 4):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(width)(x)))
    return keras.Model(inputs, layers.Dense(640)(x))


def tiny_resnet8() -> Any:
    """Build MLPerf Tiny's image classification: 32x32x3 to 10 classes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(_SEED)
    inputs = keras.Input((32, 32, 3))
    x = _conv_block(inputs, 16, 3)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        y = _conv_block(x, filters, 3, stride)
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        x = layers.Conv2D(filters, 1, stride)(x) if stride > 1 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, "softmax")(x))


def tiny_ds_cnn() -> Any:
    """Build MLPerf Tiny's keyword spotting: 49 frames of 10 coefficients to 12 words."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(_SEED)
    inputs = keras.Input((49, 10, 1))
    x = _conv_block(inputs, 64, (10, 4), 2)
    for _ in range(4):
        x = _conv_block(_conv_block(x, 64, 3, depthwise=True), 64, 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(12, "softmax")(x))


def tiny_mobilenet_v1_025() -> Any:
    """Build MLPerf Tiny's visual wake words: 96x96x3 to 2 classes, a quarter of MobileNet's width."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(_SEED)
    inputs = keras.Input((96, 96, 3))
    x = _conv_block(inputs, 8, 3, 2)
    strides = {32: 2, 64: 2, 128: 2, 256: 2}
    before = 8
    for filters in (16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256):
        stride = strides[filters] if filters != before and filters in strides else 1
        x = _conv_block(_conv_block(x, before, 3, stride, depthwise=True), filters, 1)
        before = filters
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, "softmax")(x))


def _noise(shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(_SEED)
    for _ in range(CALIBRATION_SAMPLES):
        yield rng.standard_normal((1, *shape)).astype(np.float32)


def tiny_autoencoder_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 640)."""
    return _noise((640,))


def tiny_resnet8_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 32, 32, 3)."""
    return _noise((32, 32, 3))


def tiny_ds_cnn_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 49, 10, 1)."""
    return _noise((49, 10, 1))


def tiny_mobilenet_v1_025_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 96, 96, 3)."""
    return _noise((96, 96, 3))


def calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 224, 224, 3)."""
    return _noise(IMAGE)
