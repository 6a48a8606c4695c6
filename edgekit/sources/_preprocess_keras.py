"""Steps in front of the inputs of a Keras model, as a layer."""

from __future__ import annotations

from typing import Any

from edgekit.core.values.preprocessing import Preprocessing
from edgekit.sources._preprocess_tensorflow import preprocess


def preprocess_layer(item: Preprocessing) -> Any:
    """Return a Keras layer that applies the steps of an input.

    Args:
        item: The steps.
    """
    import keras

    class PreprocessLayer(keras.layers.Layer):  # type: ignore[misc]
        """The steps of one input, in the type of the layer's policy: models are copied in float64."""

        def __init__(self, **options: Any) -> None:
            # Without autocast, which would convert pixels in front of the layer.
            super().__init__(**{**options, "autocast": False})

        def call(self, x: Any) -> Any:
            return preprocess(item, x, self.compute_dtype)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor((x.shape[0], *item.spec.shape[1:]), self.compute_dtype)

    return PreprocessLayer()
