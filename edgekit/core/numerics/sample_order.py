"""The order in which samples are dealt out to golden, calibration and test set.

The data sets of reference models are split by `edgekit.training.datasets.splits`.
"""

from __future__ import annotations

import numpy as np

from edgekit.core.numerics.metrics import Array


def split_order(count: int, labels: Array | None, seed: int) -> Array:
    """Return a permutation of which every contiguous part is a fair sample of the whole.

    Args:
        count: The number of samples N.
        labels: Their labels, shape (N,) of integers for classes; None, or values of another kind, for none.
        seed: The seed of the permutation.

    Returns:
        Indices (N,). With class labels, each part has each class in its share of the whole, up to one sample.
    """
    shuffled = np.random.default_rng(seed).permutation(count)
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return shuffled
    # The k-th of a class's n members is put at the position (k + 1/2) / n of the whole: systematic sampling.
    position = np.empty(count)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    order: Array = shuffled[np.argsort(position[shuffled], kind="stable")]
    return order
