"""lstm in Keras: one recurrent layer and a dense head."""

import keras
from keras import layers


def build() -> keras.Model:
    """Return the untrained network: input `(N, 25, 12)`, output `(N, 9)`, probabilities."""
    frames = keras.Input((25, 12), name="frames")
    x = layers.LSTM(64)(frames)  # the output after the last frame: (N, 64)
    probabilities = layers.Dense(9, activation="softmax", name="probabilities")(x)
    return keras.Model(frames, probabilities, name="lstm")
