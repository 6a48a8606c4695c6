"""mobilenet_v2_small in Keras: a narrow, shallow MobileNet v2."""

import keras
from keras import layers

# Of batch norm: a short training ends before Keras's default of 0.99 has replaced the initial statistics.
MOMENTUM = 0.9

# Expansion, filters and stride of each inverted residual.
BLOCKS = ((1, 8, 1), (6, 16, 2), (6, 16, 1), (6, 24, 2), (6, 24, 1), (6, 40, 2), (6, 40, 1), (6, 64, 1))


def convolution(x: keras.KerasTensor, filters: int, kernel: int = 1, stride: int = 1) -> keras.KerasTensor:
    """Apply a convolution and batch norm; the convolution has no bias, since batch norm adds one."""
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=MOMENTUM)(x)


def squeeze_and_excite(x: keras.KerasTensor) -> keras.KerasTensor:
    """Scale each channel by a weight computed from the means of all channels."""
    weight = layers.GlobalAveragePooling2D(keepdims=True)(x)  # (N, H, W, C) -> (N, 1, 1, C)
    weight = layers.Conv2D(x.shape[-1] // 4, 1, activation="relu")(weight)
    weight = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(weight)
    return layers.Multiply()([x, weight])


def inverted_residual(
    x: keras.KerasTensor, expansion: int, filters: int, stride: int, squeeze: bool
) -> keras.KerasTensor:
    """Apply 1x1 expansion, 3x3 depthwise and 1x1 projection, with a shortcut if the shape does not change."""
    y = x
    if expansion != 1:
        y = layers.ReLU(6.0)(convolution(y, expansion * x.shape[-1]))
    y = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization(momentum=MOMENTUM)(y))
    if squeeze:
        y = squeeze_and_excite(y)
    y = convolution(y, filters)
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == filters else y


def build(squeeze: bool = False) -> keras.Model:
    """Return the untrained network: input `(N, 96, 96, 3)`, output `(N, 10)`, probabilities.

    `squeeze` adds squeeze-and-excite to every block.
    """
    image = keras.Input((96, 96, 3), name="image")
    x = layers.ReLU(6.0)(convolution(image, 16, 3, stride=2))  # (N, 48, 48, 16)
    for expansion, filters, stride in BLOCKS:
        x = inverted_residual(x, expansion, filters, stride, squeeze)
    x = layers.ReLU(6.0)(convolution(x, 256))  # (N, 6, 6, 256)
    x = layers.GlobalAveragePooling2D()(x)
    probabilities = layers.Dense(10, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities, name="mobilenet_v2_small")
