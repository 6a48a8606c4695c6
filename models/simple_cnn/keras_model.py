"""simple_cnn in Keras: the functional API."""

import keras
from keras import layers


def build() -> keras.Model:
    """Return the untrained network: input `(N, 28, 28, 1)`, output `(N, 10)`, probabilities."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(32, 3, activation="relu")(image)  # (N, 26, 26, 32)
    x = layers.MaxPooling2D(2)(x)  # (N, 13, 13, 32)
    x = layers.Flatten()(x)  # (N, 5408)
    x = layers.Dense(64, activation="relu")(x)
    probabilities = layers.Dense(10, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities, name="simple_cnn")
