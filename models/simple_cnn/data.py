"""MNIST or any other set of 28x28 grey images with ten classes."""

from dataclasses import replace

import numpy as np

from edgekit.config.model import ModelSpec
from edgekit.core.errors import InputError
from edgekit.training.datasets import images
from edgekit.training.datasets.splits import Splits, assemble, digest

# A smaller training set is augmented by copies shifted one pixel up, down, left and right.
AUGMENT_BELOW = 10_000


def load(data: str, spec: ModelSpec) -> Splits:
    """Return images with pixels from 0 to 1. A data set with its own test part is tested on all of it."""
    labelled = images.load(data)
    if labelled.images.shape[1:] != spec.input.shape:
        raise InputError(
            f"{data}: images have shape {labelled.images.shape[1:]}, but the model expects {spec.input.shape}"
        )
    images.check_labels(data, labelled, spec)
    x = labelled.images.astype(np.float32) / 255  # (N, 28, 28, 1)
    sha256 = digest(labelled.images, labelled.labels)
    splits = assemble(labelled.name, sha256, labelled.licence, x, labelled.labels, images.part_indices(labelled, spec))
    if len(splits.train_inputs) >= AUGMENT_BELOW:
        return splits
    augmented_x, augmented_y = _shift(splits.train_inputs, splits.train_labels)
    originals = np.arange(len(splits.train_inputs))
    return replace(
        splits,
        train_inputs=augmented_x,
        train_labels=augmented_y,
        train_groups=np.tile(originals, len(augmented_x) // len(originals)),
    )


def _shift(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and copies shifted by one pixel in four directions; digits have a black border wide enough."""
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    return np.concatenate([np.roll(x, move, axis=(1, 2)) for move in moves]), np.tile(y, len(moves))
