"""mobilenet_v1_025 in Keras: MLPerf Tiny's network for visual wake words, MobileNet v1 at a quarter of its width."""

import keras
from keras import layers

# Of batch norm: a short training ends before Keras's default of 0.99 has replaced the initial statistics.
MOMENTUM = 0.9

# Filters and stride of each depthwise separable convolution.
BLOCKS = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
)


def norm_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Apply batch norm and ReLU, as after every convolution."""
    return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))


def build() -> keras.Model:
    """Return the untrained network: input `(N, 96, 96, 3)`, output `(N, 10)`, probabilities."""
    image = keras.Input((96, 96, 3), name="image")
    x = norm_relu(layers.Conv2D(8, 3, 2, padding="same")(image))  # (N, 48, 48, 8)
    for filters, stride in BLOCKS:
        x = norm_relu(layers.DepthwiseConv2D(3, stride, padding="same")(x))
        x = norm_relu(layers.Conv2D(filters, 1)(x))
    x = layers.GlobalAveragePooling2D()(x)  # (N, 3, 3, 256) -> (N, 256)
    probabilities = layers.Dense(10, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities, name="mobilenet_v1_025")
