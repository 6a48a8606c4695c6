"""autoencoder in Keras: the architecture of MLPerf Tiny's anomaly detection network."""

import keras
from keras import layers

# Of batch norm: a short training ends before Keras's default of 0.99 has replaced the initial statistics.
MOMENTUM = 0.9


def build() -> keras.Model:
    """Return the untrained network: input `(N, 480)`, output `(N, 480)`, the reconstruction of the input."""
    features = keras.Input((480,), name="features")
    x = features
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = layers.Dense(units)(x)
        x = layers.BatchNormalization(momentum=MOMENTUM)(x)
        x = layers.ReLU()(x)
    reconstruction = layers.Dense(480, name="reconstruction")(x)
    return keras.Model(features, reconstruction, name="autoencoder")
