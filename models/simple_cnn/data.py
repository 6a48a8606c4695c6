"""MNIST, or any other set of 28x28 grey images with ten classes."""

from dataclasses import replace

import numpy as np

from edgekit.config.model import ModelSpec
from edgekit.core.errors import InputError
from edgekit.training.datasets import images
from edgekit.training.datasets.splits import Splits, assemble, digest

AUGMENT_BELOW = 10_000
"""A training set smaller than this is shown again, shifted by one pixel up, down, left and right."""


def load(data: str, spec: ModelSpec) -> Splits:
    """Scales pixels from 0..255 to 0..1. A data set with a test part of its own is tested on all of that."""
    found = images.load(data)
    if found.images.shape[1:] != spec.input.shape:
        raise InputError(f"{data}: images of shape {found.images.shape[1:]} where this model takes {spec.input.shape}")
    images.check_labels(data, found, spec)
    x = found.images.astype(np.float32) / 255  # (N, 28, 28, 1)
    sha256 = digest(found.images, found.labels)
    splits = assemble(found.name, sha256, found.licence, x, found.labels, images.part_indices(found, spec))
    if len(splits.train_inputs) >= AUGMENT_BELOW:
        return splits
    more_x, more_y = _shifted(splits.train_inputs, splits.train_labels)
    digits = np.arange(len(splits.train_inputs))
    return replace(
        splits, train_inputs=more_x, train_labels=more_y, train_groups=np.tile(digits, len(more_x) // len(digits))
    )


def _shifted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images, and their copies shifted by one pixel in four directions. Digits have a black border to spare."""
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    return np.concatenate([np.roll(x, move, axis=(1, 2)) for move in moves]), np.tile(y, len(moves))
