"""y = wx + b in Keras."""

import keras


def build() -> keras.Model:
    """Return the untrained network: input `(N, 1)`, output `(N, 1)`."""
    x = keras.Input((1,), name="x")
    y = keras.layers.Dense(1, name="y")(x)
    return keras.Model(x, y, name="linear")
