"""Japanese vowels: speaker identification from 25 frames of twelve cepstral coefficients; from the aeon package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training.datasets.packaged import read_packaged
from edgekit.training.datasets.splits import Splits, assemble, digest, split_indices

AEON = Requirement("aeon", "aeon", "data")

NAME = "japanese-vowels"
LICENCE = "CC BY 4.0 (Japanese Vowels, Kudo, Toyama and Shimbo, UCI Machine Learning Repository)"
_FOLDER = "datasets/data/JapaneseVowels"
_FILES = {
    "JapaneseVowels_eq_TRAIN.ts": "8958279c6296b97c8e34038346407935222db171492b84dffa3b930d087bc2d6",
    "JapaneseVowels_eq_TEST.ts": "bb83bb1aa6bfb17faae269f6829b7cac71de36fdd3264ee34137fe90270d5895",
}
# Rounded mean and standard deviation of each coefficient over the 270 utterances of the training part.
_MEAN = np.array([0.87, -0.55, 0.23, -0.26, 0.23, -0.22, -0.17, -0.05, -0.21, -0.18, -0.02, 0.09], np.float32)
_DEVIATION = np.array([0.48, 0.39, 0.30, 0.31, 0.26, 0.17, 0.16, 0.19, 0.18, 0.12, 0.10, 0.13], np.float32)
# Standardised values are clipped to this many standard deviations, so that the input has a fixed range.
_LIMIT = 3.0


@dataclass(frozen=True)
class Utterances:
    """Recorded utterances.

    Attributes:
        frames: Cepstral coefficients `(N, 25, 12)` as recorded, float32.
        speakers: Speaker of each utterance `(N,)`, 0 to 8.
        test_from: Index of the first utterance of the data set's own test part.
    """

    frames: Array
    speakers: Array
    test_from: int


def load(data: str) -> Utterances:
    """Load all 640 utterances.

    Args:
        data: Name of the data; only `japanese-vowels` is known.

    Returns:
        The utterances.

    Raises:
        InputError: The name is unknown, or a file is missing or has a different hash.
        MissingDependency: The aeon package is not installed.
    """
    if data != NAME:
        raise InputError(f"unknown data '{data}'; known: {NAME}")
    description = "the file of Japanese vowels"
    contents = [
        read_packaged(data, AEON, "1.6.0", f"{_FOLDER}/{name}", sha256, description) for name, sha256 in _FILES.items()
    ]
    (train, train_speakers), (test, test_speakers) = (_parse(content.decode()) for content in contents)
    return Utterances(np.concatenate([train, test]), np.concatenate([train_speakers, test_speakers]), len(train))


def _parse(text: str) -> tuple[Array, Array]:
    """Parse a .ts file: one sample per line, its channels and finally its class separated by colons."""
    rows = [line.strip().split(":") for line in text.splitlines() if line.strip() and line[0] not in "@#"]
    channels = np.array([[np.array(channel.split(","), np.float32) for channel in row[:-1]] for row in rows])
    frames = np.ascontiguousarray(channels.transpose(0, 2, 1))  # (N, C, T) -> (N, T, C)
    return frames, np.array([int(row[-1]) - 1 for row in rows], np.int64)


def standardise(frames: Array) -> Array:
    """Standardise each coefficient by fixed constants, which a device can apply too, and clip to -3..3.

    Args:
        frames: Cepstral coefficients `(..., 12)` as recorded.

    Returns:
        An array of the same shape, float32.
    """
    scaled: Array = np.clip((frames.astype(np.float32) - _MEAN) / _DEVIATION, -_LIMIT, _LIMIT).astype(np.float32)
    return scaled


def load_splits(data: str, golden: int, calibration: int) -> Splits:
    """Load the utterances; the data set's own test part is split into golden, calibration and test samples.

    Args:
        data: Name of the data, see `load`.
        golden: Number of golden samples.
        calibration: Number of calibration samples.

    Returns:
        The four parts with standardised inputs `(N, 25, 12)`.

    Raises:
        InputError: The name is unknown, or a file is missing or has a different hash.
        MissingDependency: The aeon package is not installed.
    """
    utterances = load(data)
    held_out = utterances.speakers[utterances.test_from :]
    parts = split_indices(len(held_out), (golden, calibration), seed=0, labels=held_out)
    indices = [part + utterances.test_from for part in parts]
    sha256 = digest(utterances.frames, utterances.speakers)
    x = standardise(utterances.frames)
    return assemble(NAME, sha256, LICENCE, x, utterances.speakers, [*indices, np.arange(utterances.test_from)])
