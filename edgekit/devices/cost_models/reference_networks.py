"""Keras models of the networks with published timings; weights are random, since latency does not depend on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The input of ImageNet networks: height, width, channels.
IMAGE = (224, 224, 3)
_SEED = 0
# Ranges only have to exist: 32 samples keep the conversion short.
CALIBRATION_SAMPLES = 32
# A detector's takes a second each.
_DETECTOR_SAMPLES = 4

# A network's name in tables of timings -> the function in this module that builds it.
PUBLISHED_AS = {
    "mobilenet_v1_1.0": "mobilenet_v1",
    "mobilenet_v2_1.0": "mobilenet_v2",
    "efficientdet_lite0": "efficientdet_lite0",
    "efficientdet_lite1": "efficientdet_lite1",
    "efficientdet_lite2": "efficientdet_lite2",
}
# A network's name in tables of timings -> its family: networks of one family consist of the same blocks.
FAMILIES = {name: name.rstrip("0123456789.").rstrip("_") for name in PUBLISHED_AS}


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


# The classes that a detector scores for each anchor, and the boxes that its post-processing returns.
CLASSES, DETECTIONS = 90, 25
# Published timings of these networks include the post-processing of so many anchors.
ANCHORS = {"efficientdet_lite0": 19206, "efficientdet_lite1": 27621, "efficientdet_lite2": 37629}

# EfficientDet-Lite (Tan, Pang and Le, arXiv 1911.09070; google/automl, efficientdet/hparams_config.py): the side of the
# input, EfficientNet-Lite's width and depth, the feature pyramid's channels and repeats, and the repeats of the heads.
_DETECTORS = {
    0: (320, 1.0, 1.0, 64, 3, 3),
    1: (384, 1.0, 1.1, 88, 4, 3),
    2: (448, 1.1, 1.2, 112, 5, 3),
}
# EfficientNet-Lite's stages: repeats, kernel, stride, expansion, channels. The first and the last keep their repeats.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# The stages whose outputs are levels 3, 4 and 5 of the feature pyramid.
_PYRAMID = {2: 3, 4: 4, 6: 5}
_ANCHORS = 9


def efficientdet_lite0() -> Any:
    """Build EfficientDet-Lite0 without post-processing: 320x320x3 to class scores and boxes of 19206 anchors."""
    return _detector(0)


def efficientdet_lite1() -> Any:
    """Build EfficientDet-Lite1 without post-processing: 384x384x3 to class scores and boxes of 27621 anchors."""
    return _detector(1)


def efficientdet_lite2() -> Any:
    """Build EfficientDet-Lite2 without post-processing: 448x448x3 to class scores and boxes of 37629 anchors."""
    return _detector(2)


def efficientdet_lite0_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 320, 320, 3)."""
    return _noise((320, 320, 3), _DETECTOR_SAMPLES)


def efficientdet_lite1_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 384, 384, 3)."""
    return _noise((384, 384, 3), _DETECTOR_SAMPLES)


def efficientdet_lite2_calibration() -> Iterator[NDArray[np.float32]]:
    """Yield calibration samples of noise, each of shape (1, 448, 448, 3)."""
    return _noise((448, 448, 3), _DETECTOR_SAMPLES)


def _convolution(x: Any, filters: int, kernel: int = 1, stride: int = 1, relu: bool = True) -> Any:
    """Apply a convolution and batch normalization, and ReLU6 if asked."""
    from keras import layers

    x = layers.BatchNormalization()(layers.Conv2D(filters, kernel, stride, "same", use_bias=False)(x))
    return layers.ReLU(6)(x) if relu else x


def _round_filters(filters: float) -> int:
    """Round channels to a multiple of 8, but not down by more than a tenth."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def _backbone(x: Any, width: float, depth: float) -> dict[int, Any]:
    """Apply EfficientNet-Lite without its head; return levels 3, 4 and 5 of the feature pyramid."""
    from keras import layers

    x, levels = _convolution(x, 32, 3, 2), {}
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
        count = repeats if stage in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
        for block in range(count):
            y = _convolution(x, x.shape[-1] * expansion) if expansion > 1 else x
            y = layers.DepthwiseConv2D(kernel, stride if block == 0 else 1, "same", use_bias=False)(y)
            y = layers.ReLU(6)(layers.BatchNormalization()(y))
            y = _convolution(y, _round_filters(channels * width), relu=False)
            x = layers.Add()([x, y]) if block else y
        if stage in _PYRAMID:
            levels[_PYRAMID[stage]] = x
    return levels


def _resample(x: Any, side: int, filters: int) -> Any:
    """Bring a level to a side and to a number of channels."""
    from keras import layers

    x = x if x.shape[-1] == filters else _convolution(x, filters, relu=False)
    if x.shape[1] > side:
        return layers.MaxPooling2D(3, 2, "same")(x)
    if x.shape[1] < side:
        x = layers.UpSampling2D(2)(x)
        # An odd level: the pyramid's side is not twice that of the level above.
        return x if x.shape[1] == side else layers.Cropping2D(((0, x.shape[1] - side),) * 2)(x)
    return x


def _pyramid_node(inputs: list[Any], filters: int) -> Any:
    """Sum levels, resampled to the first one's side, and apply ReLU6 and a separable convolution."""
    from keras import layers

    x, *others = (_resample(level, inputs[0].shape[1], filters) for level in inputs)
    for other in others:
        x = layers.Add()([x, other])
    x = layers.SeparableConv2D(filters, 3, padding="same")(layers.ReLU(6)(x))
    return layers.BatchNormalization()(x)


def _pyramid_cell(levels: dict[int, Any], filters: int) -> dict[int, Any]:
    """Apply one cell of the bidirectional feature pyramid to levels 3 to 7."""
    down = {7: levels[7]}
    for level in (6, 5, 4, 3):
        down[level] = _pyramid_node([levels[level], down[level + 1]], filters)
    up = {3: down[3]}
    for level in (4, 5, 6):
        up[level] = _pyramid_node([levels[level], down[level], up[level - 1]], filters)
    up[7] = _pyramid_node([levels[7], up[6]], filters)
    return up


def _head(levels: dict[int, Any], filters: int, repeats: int, values: int) -> Any:
    """Apply a head, whose convolutions all levels share; return (1, anchors, values)."""
    from keras import layers

    convolutions = [layers.SeparableConv2D(filters, 3, padding="same") for _ in range(repeats)]
    last = layers.SeparableConv2D(_ANCHORS * values, 3, padding="same")
    outputs = []
    for level in sorted(levels):
        x = levels[level]
        for convolution in convolutions:
            x = layers.ReLU(6)(layers.BatchNormalization()(convolution(x)))
        outputs.append(layers.Reshape((-1, values))(last(x)))
    return layers.Concatenate(axis=1)(outputs)


def _detector(number: int) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(_SEED)
    side, width, depth, filters, cells, repeats = _DETECTORS[number]
    inputs = keras.Input((side, side, 3))
    levels = _backbone(inputs, width, depth)
    levels[6] = layers.MaxPooling2D(3, 2, "same")(_convolution(levels[5], filters, relu=False))
    levels[7] = layers.MaxPooling2D(3, 2, "same")(levels[6])
    for _ in range(cells):
        levels = _pyramid_cell(levels, filters)
    classes = layers.Activation("sigmoid")(_head(levels, filters, repeats, CLASSES))
    return keras.Model(inputs, [classes, _head(levels, filters, repeats, 4)])


# The name of a benchmark of MLPerf Tiny -> the function in this module that builds its network.
TINY = {"ad": "tiny_autoencoder", "ic": "tiny_resnet8", "kws": "tiny_ds_cnn", "vww": "tiny_mobilenet_v1_025"}


# The networks that a board of one's own is measured with: function in this module -> the network's family. Families
# are left out of a fit as a whole, so that a network's own blocks do not predict it: keyword spotting and visual wake
# words consist of MobileNet's.
BOARD = {
    "tiny_autoencoder": "autoencoder",
    "tiny_resnet8": "resnet",
    "tiny_ds_cnn": "mobilenet_v1",
    "tiny_mobilenet_v1_025": "mobilenet_v1",
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
    "efficientdet_lite0": "efficientdet_lite",
}
# Those of them that take seconds on a slow board and on its emulated core.
BOARD_QUICK = tuple(name for name in BOARD if name.startswith("tiny_"))


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


def _noise(shape: tuple[int, ...], samples: int = CALIBRATION_SAMPLES) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(_SEED)
    for _ in range(samples):
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
