"""Japanese vowels: nine men say /ae/, and who was it? Twelve coefficients in 25 frames; from the aeon package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training.datasets.packaged import read
from edgekit.training.datasets.splits import Splits, assemble, cut, digest

AEON = Requirement("aeon", "aeon", "data")

NAME = "japanese-vowels"
LICENCE = "CC BY 4.0 (Japanese Vowels, Kudo, Toyama and Shimbo, UCI Machine Learning Repository)"
_FOLDER = "datasets/data/JapaneseVowels"
_FILES = {
    "JapaneseVowels_eq_TRAIN.ts": "8958279c6296b97c8e34038346407935222db171492b84dffa3b930d087bc2d6",
    "JapaneseVowels_eq_TEST.ts": "bb83bb1aa6bfb17faae269f6829b7cac71de36fdd3264ee34137fe90270d5895",
}
# Mean and deviation of each coefficient over the 270 utterances of the training part, rounded.
_MEAN = np.array([0.87, -0.55, 0.23, -0.26, 0.23, -0.22, -0.17, -0.05, -0.21, -0.18, -0.02, 0.09], np.float32)
_DEVIATION = np.array([0.48, 0.39, 0.30, 0.31, 0.26, 0.17, 0.16, 0.19, 0.18, 0.12, 0.10, 0.13], np.float32)
_LIMIT = 3.0


@dataclass(frozen=True)
class Utterances:
    """Frames (N, 25, 12), float32, as recorded, and speakers (N,), 0 to 8. From `test_from` on: the test part."""

    frames: Array
    speakers: Array
    test_from: int


def load(data: str) -> Utterances:
    """All 640 utterances. Raises InputError for another name or a file with another sha256; MissingDependency."""
    if data != NAME:
        raise InputError(f"unknown data '{data}'; known: {NAME}")
    what = "the file of Japanese vowels"
    contents = [read(data, AEON, "1.6.0", f"{_FOLDER}/{name}", sha256, what) for name, sha256 in _FILES.items()]
    (train, train_speakers), (test, test_speakers) = (_parse(content.decode()) for content in contents)
    return Utterances(np.concatenate([train, test]), np.concatenate([train_speakers, test_speakers]), len(train))


def _parse(text: str) -> tuple[Array, Array]:
    """Of a .ts file: a line a sample, its channels separated by colons, then its class."""
    rows = [line.strip().split(":") for line in text.splitlines() if line.strip() and line[0] not in "@#"]
    channels = np.array([[np.array(channel.split(","), np.float32) for channel in row[:-1]] for row in rows])
    frames = np.ascontiguousarray(channels.transpose(0, 2, 1))  # (N, C, T) -> (N, T, C)
    return frames, np.array([int(row[-1]) - 1 for row in rows], np.int64)


def standardised(frames: Array) -> Array:
    """By fixed figures for each coefficient, and clipped to -3..3, so that a device can do the same. Shape stays."""
    scaled: Array = np.clip((frames.astype(np.float32) - _MEAN) / _DEVIATION, -_LIMIT, _LIMIT).astype(np.float32)
    return scaled


def splits(data: str, golden: int, calibration: int) -> Splits:
    """The training part of the data set trains; its test part is cut into golden, calibration and test."""
    found = load(data)
    held_out = found.speakers[found.test_from :]
    parts = cut(len(held_out), (golden, calibration), seed=0, labels=held_out)
    indices = [part + found.test_from for part in parts]
    sha256 = digest(found.frames, found.speakers)
    x = standardised(found.frames)
    return assemble(NAME, sha256, LICENCE, x, found.speakers, [*indices, np.arange(found.test_from)])
