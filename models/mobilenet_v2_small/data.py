"""Any image set with ten classes; by default MNIST digits, enlarged and repeated in three channels."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import images
from edgekit.training.datasets.splits import Splits

# Larger parts of a data set are subsampled to this many images, which take 1.1 GB at 96x96x3 in float32.
MAX_SAMPLES = 10_000


def load(data: str, spec: ModelSpec) -> Splits:
    """Return images with pixels from 0 to 1, resized to the input shape; a grey channel is repeated for all colours."""
    return images.load_splits(data, spec, MAX_SAMPLES)
