"""A small part of the MNIST digits as IDX files: whole epochs of it take seconds."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from edgekit.training.datasets import images


def write_few_digits(folder: Path, train: int, test: int) -> np.ndarray:
    """Write the folder that `edgekit train --data` reads.

    Args:
        folder: Where the four files go.
        train: The number of digits to train on.
        test: The number of digits in the test part.

    Returns:
        The images of the test part, shape (test, 28, 28, 1).
    """
    mnist = images.load("mnist-5k")
    order = np.random.default_rng(0).permutation(len(mnist.labels))
    parts = {"train": order[:train], "t10k": order[train : train + test]}
    for name, index in parts.items():
        _write_idx(folder / f"{name}-images-idx3-ubyte.gz", mnist.images[index, :, :, 0])
        _write_idx(folder / f"{name}-labels-idx1-ubyte.gz", mnist.labels[index])
    digits: np.ndarray = mnist.images[parts["t10k"]]
    return digits


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
