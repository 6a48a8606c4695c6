"""Keras networks as people write them, and the architectures of `keras.applications` with random weights."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

INPUTS: dict[str, dict[str, tuple[object, ...]]] = {}
"""The inputs of each network by name: the kind of numbers and the shape without the batch."""


def _network(**inputs):
    def register(function):
        def build():
            keras.utils.set_random_seed(0)
            model = function()
            fit_batch_norms(model, inputs)
            return model

        INPUTS[function.__name__] = inputs
        build.__name__ = function.__name__
        return build

    return register


def fit_batch_norms(model, inputs):
    """Let batch norms take the statistics of random inputs, as those of a trained network have them."""
    norms = [part for part in model._flatten_layers() if isinstance(part, layers.BatchNormalization)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((8, *shape)).astype("float32") for _, *shape in inputs.values()]
    model(arrays if len(arrays) > 1 else arrays[0], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def application(name, size, full):
    """Build an architecture of `keras.applications` without its last activation, which hides most of a difference."""
    keras.utils.set_random_seed(0)
    options = {} if full else {"input_shape": (size, size, 3), "classes": 10}
    model = getattr(keras.applications, name)(weights=None, classifier_activation=None, **options)
    fit_batch_norms(model, {"image": ("pixels", *model.input_shape[1:])})
    return model


@_network(image=("pixels", 28, 28, 1))
def mnist():
    """The convolutional network of Keras's own first example."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


@_network(image=("image", 32, 32, 3))
def keras_unet():
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    residual = x
    for width in (16, 24):
        x = layers.SeparableConv2D(width, 3, padding="same")(layers.Activation("relu")(x))
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        residual = layers.Conv2D(width, 1, strides=2, padding="same")(residual)
        x = residual = layers.add([x, residual])
    for width in (24, 16, 8):
        x = layers.Conv2DTranspose(width, 3, padding="same")(layers.Activation("relu")(x))
        x = layers.UpSampling2D(2)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Conv2D(3, 3, activation="softmax", padding="same")(x))


@_network(x=("series", 20, 4))
def keras_lstm():
    return keras.Sequential([keras.Input((20, 4)), layers.LSTM(12), layers.Dense(3, activation="softmax")])


@_network(x=("series", 20, 4))
def keras_gru_bidirectional():
    inputs = keras.Input((20, 4), name="x")
    x = layers.Bidirectional(layers.GRU(8, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.TimeDistributed(layers.Dense(5))(x))


@_network(x=("series", 6, 8, 8, 2))
def keras_convlstm():
    inputs = keras.Input((6, 8, 8, 2), name="x")
    return keras.Model(inputs, layers.ConvLSTM2D(4, 3, padding="same")(inputs))


@_network(x=("series", 24, 1))
def keras_timeseries_transformer():
    inputs = keras.Input((24, 1), name="x")
    x = inputs
    for _ in range(2):
        y = layers.MultiHeadAttention(key_dim=8, num_heads=2, dropout=0.25)(x, x)
        res = layers.LayerNormalization(epsilon=1e-6)(y) + x
        y = layers.Conv1D(4, 1, activation="relu")(res)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv1D(1, 1)(y)) + res
    x = layers.GlobalAveragePooling1D(data_format="channels_last")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(x))


class _Patches(layers.Layer):
    def call(self, images):
        patches = keras.ops.image.extract_patches(images, size=8)
        return keras.ops.reshape(patches, (-1, 16, 8 * 8 * 3))


@_network(image=("image", 32, 32, 3))
def keras_vit():
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Dense(16)(_Patches()(inputs))
    x = x + layers.Embedding(16, 16)(keras.ops.arange(16)[None])
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([layers.MultiHeadAttention(num_heads=2, key_dim=8)(y, y), x])
    y = layers.Dense(32, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(x))
    x = layers.Add()([layers.Dense(16)(y), x])
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


@_network(wave=("audio", 256))
def keras_wavenet():
    inputs = keras.Input((256,), name="wave")
    x = layers.Reshape((256, 1))(inputs)
    for rate in (1, 2, 4, 8):
        x = layers.Conv1D(12, 2, padding="causal", activation="relu", dilation_rate=rate)(x)
    return keras.Model(inputs, layers.Conv1D(4, 1)(x))


@_network(image=("pixels", 16, 16, 3))
def keras_super_resolution():
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 5, padding="same", activation="relu", kernel_initializer="orthogonal")(inputs)
    x = layers.Conv2D(4 * 3, 3, padding="same", activation="relu")(x)
    x = layers.Reshape((16, 16, 2, 2, 3))(x)
    x = layers.Reshape((32, 32, 3))(layers.Permute((1, 3, 2, 4, 5))(x))
    return keras.Model(inputs, x)


@_network(ids=("padded_ids", 12))
def keras_text():
    inputs = keras.Input((12,), dtype="int32", name="ids")
    x = layers.Embedding(100, 8, mask_zero=True)(inputs)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.LSTM(8)(x)))


@_network(image=("image", 24, 24, 3), numbers=("series", 5))
def keras_two_inputs():
    image, numbers = keras.Input((24, 24, 3), name="image"), keras.Input((5,), name="numbers")
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(8, 3, strides=2, activation="swish")(image))
    x = layers.Concatenate()([x, layers.Dense(8, activation="selu")(numbers)])
    return keras.Model([image, numbers], {"class": layers.Dense(4, name="class")(x), "value": layers.Dense(1)(x)})


@_network(x=("series", 30, 3))
def keras_autoencoder():
    inputs = keras.Input((30, 3), name="x")
    x = layers.Conv1D(8, 7, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv1D(4, 7, strides=1, padding="same", activation="relu")(layers.Dropout(0.2)(x))
    x = layers.Conv1DTranspose(8, 7, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv1DTranspose(3, 7, padding="same")(x))
