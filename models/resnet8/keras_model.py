"""resnet8 in Keras: MLPerf Tiny's network for image classification."""

import keras
from keras import layers

# Of batch norm: a short training ends before Keras's default of 0.99 has replaced the initial statistics.
MOMENTUM = 0.9


def residual(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    """Add two 3x3 convolutions to a shortcut, which is a 1x1 convolution if the stride is not 1."""
    y = layers.Conv2D(filters, 3, stride, padding="same")(x)
    y = layers.BatchNormalization(momentum=MOMENTUM)(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(filters, 3, padding="same")(y)
    y = layers.BatchNormalization(momentum=MOMENTUM)(y)
    if stride != 1:
        x = layers.Conv2D(filters, 1, stride)(x)
    return layers.ReLU()(layers.Add()([x, y]))


def build() -> keras.Model:
    """Return the untrained network: input `(N, 32, 32, 3)`, output `(N, 10)`, probabilities."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same")(image)
    x = layers.BatchNormalization(momentum=MOMENTUM)(x)
    x = layers.ReLU()(x)
    x = residual(x, 16, stride=1)  # (N, 32, 32, 16)
    x = residual(x, 32, stride=2)  # (N, 16, 16, 32)
    x = residual(x, 64, stride=2)  # (N, 8, 8, 64)
    x = layers.GlobalAveragePooling2D()(x)
    probabilities = layers.Dense(10, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities, name="resnet8")
