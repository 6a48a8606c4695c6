"""CIFAR-10, or any other set of images with ten classes; by default MNIST's digits in the shape of CIFAR's images."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import images
from edgekit.training.datasets.splits import Splits


def load(data: str, spec: ModelSpec) -> Splits:
    """Pixels from 0 to 1; images of another size are resized, grey ones tripled to red, green and blue."""
    return images.load_splits(data, spec)
