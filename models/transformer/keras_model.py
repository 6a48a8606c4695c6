"""transformer in Keras: two encoder layers over 25 frames, learned positions, mean pooling."""

import keras
from keras import layers

WIDTH, HEADS, HIDDEN = 32, 4, 64
EPSILON = 1e-5


def encoder_layer(x: keras.KerasTensor) -> keras.KerasTensor:
    """Apply self-attention and a feed-forward network, each with a layer norm before it and a shortcut around it."""
    y = layers.LayerNormalization(epsilon=EPSILON)(x)
    y = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(y, y)
    x = layers.Add()([x, layers.Dropout(0.1)(y)])
    y = layers.LayerNormalization(epsilon=EPSILON)(x)
    y = layers.Dense(HIDDEN, activation="relu")(y)
    y = layers.Dense(WIDTH)(y)
    return layers.Add()([x, layers.Dropout(0.1)(y)])


def build() -> keras.Model:
    """Return the untrained network: input `(N, 25, 12)`, output `(N, 9)`, probabilities."""
    frames = keras.Input((25, 12), name="frames")
    # A dense layer with a separate bias per frame; that bias is the learned position.
    positions = keras.initializers.RandomNormal(stddev=0.02)
    x = layers.EinsumDense("ntc,cd->ntd", (25, WIDTH), bias_axes="td", bias_initializer=positions)(frames)
    for _ in range(2):
        x = encoder_layer(x)
    x = layers.LayerNormalization(epsilon=EPSILON)(x)
    x = layers.GlobalAveragePooling1D()(x)  # (N, 25, 32) -> (N, 32)
    probabilities = layers.Dense(9, activation="softmax", name="probabilities")(x)
    return keras.Model(frames, probabilities, name="transformer")
