"""Japanese vowels: identify which of nine men said /ae/."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import vowels
from edgekit.training.datasets.splits import Splits


def load(data: str, spec: ModelSpec) -> Splits:
    """Return frames `(N, 25, 12)` in the units of `vowels.standardise`."""
    return vowels.load_splits(data, spec.data.golden, spec.data.calibration)
