"""The networks that published timings are of, as Keras models with random weights: latency does not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = (224, 224, 3)
_SEED = 0
CALIBRATION_SAMPLES = 8

PUBLISHED_AS = {"mobilenet_v1_1.0": "mobilenet_v1", "mobilenet_v2_1.0": "mobilenet_v2"}
"""What tables call a network, and the function here that builds it."""


def mobilenet_v1() -> Any:
    """MobileNet 1.0, 224x224x3 to 1000 classes (Howard and others, arXiv 1704.04861)."""
    import keras

    keras.utils.set_random_seed(_SEED)
    return keras.applications.MobileNet(input_shape=IMAGE, weights=None)


def mobilenet_v2() -> Any:
    """MobileNetV2 1.0, 224x224x3 to 1000 classes (Sandler and others, arXiv 1801.04381)."""
    import keras

    keras.utils.set_random_seed(_SEED)
    return keras.applications.MobileNetV2(input_shape=IMAGE, weights=None)


def calibration() -> Iterator[NDArray[np.float32]]:
    """Noise, shape (1, 224, 224, 3) each: the ranges need only be there."""
    rng = np.random.default_rng(_SEED)
    for _ in range(CALIBRATION_SAMPLES):
        yield rng.standard_normal((1, *IMAGE)).astype(np.float32)
