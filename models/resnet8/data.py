"""CIFAR-10 or any other image set with ten classes; by default MNIST digits in the shape of CIFAR-10."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import images
from edgekit.training.datasets.splits import Splits


def load(data: str, spec: ModelSpec) -> Splits:
    """Return images with pixels from 0 to 1, resized to the input shape; a grey channel is repeated for all colours."""
    return images.load_splits(data, spec)
