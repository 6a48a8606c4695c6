"""ds_cnn in Keras: the architecture of MLPerf Tiny's keyword spotting network, for four seconds of six channels."""

import keras
from keras import layers

# Of batch norm: a short training ends before Keras's default of 0.99 has replaced the initial statistics.
MOMENTUM = 0.9


def norm_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Apply batch norm and ReLU, as after every convolution."""
    return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))


def build() -> keras.Model:
    """Return the untrained network: input `(N, 100, 6, 1)` (time, channel, 1), output `(N, 7)`, probabilities."""
    signal = keras.Input((100, 6, 1), name="signal")
    x = norm_relu(layers.Conv2D(64, (10, 4), 2, padding="same")(signal))  # (N, 50, 3, 64)
    x = layers.Dropout(0.2)(x)
    for _ in range(4):
        x = norm_relu(layers.DepthwiseConv2D(3, padding="same")(x))
        x = norm_relu(layers.Conv2D(64, 1)(x))
    x = layers.Dropout(0.4)(x)
    x = layers.GlobalAveragePooling2D()(x)
    probabilities = layers.Dense(7, activation="softmax", name="probabilities")(x)
    return keras.Model(signal, probabilities, name="ds_cnn")
