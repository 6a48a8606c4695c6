"""autoencoder in Keras: the shape of MLPerf Tiny's anomaly detection network."""

import keras
from keras import layers

MOMENTUM = 0.9
"""Of batch norm: a short training is over before Keras's 0.99 has forgotten the statistics it started with."""


def build() -> keras.Model:
    """Input and output (N, 480): the output is the input as the network remembers what is normal."""
    features = keras.Input((480,), name="features")
    x = features
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = layers.Dense(units)(x)
        x = layers.BatchNormalization(momentum=MOMENTUM)(x)
        x = layers.ReLU()(x)
    reconstruction = layers.Dense(480, name="reconstruction")(x)
    return keras.Model(features, reconstruction, name="autoencoder")
