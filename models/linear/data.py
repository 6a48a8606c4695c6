"""Points on y = 3x + 1, with noise."""

import numpy as np

from edgekit.config.model import ModelSpec
from edgekit.core.errors import InputError
from edgekit.training.datasets.splits import Splits, assemble, digest, split_indices

TRAIN = 2000
NOISE = 0.1  # standard deviation


def load(data: str, spec: ModelSpec) -> Splits:
    """Draw the points; only the default data exists. Raise InputError for any other name."""
    if data != spec.data.default:
        raise InputError(f"unknown data '{data}'; known: {spec.data.default}")
    rng = np.random.default_rng(spec.training.seed)
    count = TRAIN + spec.data.golden + spec.data.calibration + spec.data.test
    x = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    y = (3 * x[:, 0] + 1 + rng.normal(0, NOISE, count)).astype(np.float32)
    parts = split_indices(count, (spec.data.golden, spec.data.calibration, spec.data.test), seed=0)
    return assemble(data, digest(x, y), spec.data.licence, x, y, parts)
