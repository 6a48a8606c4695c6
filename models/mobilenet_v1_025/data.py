"""Any set of images with ten classes; by default MNIST's digits, enlarged and tripled to what this network takes."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import images
from edgekit.training.datasets.splits import Splits

MOST = 10_000
"""A larger part of a data set is thinned to so many images: at 96x96x3 they take 1.1 GB."""


def load(data: str, spec: ModelSpec) -> Splits:
    """Pixels from 0 to 1; images of another size are resized, grey ones tripled to red, green and blue."""
    return images.load_splits(data, spec, MOST)
