"""Smartwatch recordings of shoulder exercises, six channels at 50 Hz; from the seglearn package.

140 recordings: each of ten people performs each of seven exercises with the left and with the right arm.
The channels are accelerations ax, ay, az in g and rotation rates wx, wy, wz in rad/s.
Source: Burns et al., "Shoulder physiotherapy exercise recognition", arXiv 1802.01489.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training.datasets.packaged import read_packaged
from edgekit.training.datasets.splits import split_indices

SEGLEARN = Requirement("seglearn", "seglearn", "data")

NAME = "watch"
LICENCE = "BSD 3-Clause (seglearn, David Burns)"
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
# Roughly the standard deviation of each channel: in g for accelerations, in rad/s for rotation rates.
_UNIT = np.array([1.0, 0.5, 0.5, 1.0, 2.5, 1.0], np.float32)
# Standardised values are clipped to this many units, so that the input has a fixed range.
_LIMIT = 4.0


@dataclass(frozen=True)
class Recording:
    """One set of repetitions of an exercise.

    Attributes:
        signal: Samples `(T, 6)` as measured, float32.
        exercise: Index in `EXERCISES`, 0 to 6.
        person: Number of the person, 1 to 10.
    """

    signal: NDArray[np.float32]
    exercise: int
    person: int


@dataclass(frozen=True)
class Parts:
    """Recordings by purpose; a recording is in one part only."""

    train: tuple[Recording, ...]
    calibration: tuple[Recording, ...]
    golden: tuple[Recording, ...]
    test: tuple[Recording, ...]


def load(data: str) -> tuple[Recording, ...]:
    """Load all 140 recordings.

    The file is a pickle, which can execute any code, so it is only opened after its sha256 has been verified.

    Args:
        data: Name of the data; only `watch` is known.

    Returns:
        The recordings.

    Raises:
        InputError: The name is unknown, or the file is missing or has a different hash.
        MissingDependency: The seglearn package is not installed.
    """
    if data != NAME:
        raise InputError(f"unknown data '{data}'; known: {NAME}")
    content = read_packaged(data, SEGLEARN, "1.2.5", "data/watch_dataset.npy", _SHA256, "the smartwatch recordings")
    table = np.load(io.BytesIO(content), allow_pickle=True).item()
    return tuple(
        Recording(np.asarray(signal, np.float32), int(exercise), int(person))
        for signal, exercise, person in zip(table["X"], table["y"], table["subject"], strict=True)
    )


def split_recordings(recordings: Sequence[Recording], test_people: Sequence[int], held_out: int) -> Parts:
    """Split recordings by person and by recording, so that overlapping windows of different parts share no sample.

    Args:
        recordings: The recordings.
        test_people: People whose recordings are all in the test part and in no other.
        held_out: Number of recordings of each exercise in the calibration part, and in the golden part.

    Returns:
        The four parts.

    Raises:
        InputError: No recording would be left to train on.
    """
    test = tuple(recording for recording in recordings if recording.person in test_people)
    others = [recording for recording in recordings if recording.person not in test_people]
    exercises = np.array([recording.exercise for recording in others])
    count = held_out * len(np.unique(exercises))
    indices = split_indices(len(others), (count, count), seed=0, labels=exercises)
    golden, calibration, train = (tuple(others[index] for index in part) for part in indices)
    return Parts(train, calibration, golden, test)


def halve_rate(recordings: Sequence[Recording]) -> list[Recording]:
    """Return the recordings at half the sampling rate, 25 Hz, which is still fast enough for movements of an arm.

    Args:
        recordings: Recordings at 50 Hz.

    Returns:
        Copies in which each sample is the mean of two.
    """
    return [
        replace(recording, signal=recording.signal[: len(recording.signal) // 2 * 2].reshape(-1, 2, 6).mean(axis=1))
        for recording in recordings
    ]


def mirror(recordings: Sequence[Recording]) -> list[Recording]:
    """Return copies as if the exercise had been performed with the other arm: mirrored along the watch's x axis.

    A reflection inverts the acceleration along its axis and the rotation rates about the two other axes.

    Args:
        recordings: The recordings.

    Returns:
        One mirrored copy of each.
    """
    signs = np.array([-1, 1, 1, 1, -1, -1], np.float32)
    return [replace(recording, signal=recording.signal * signs) for recording in recordings]


def rotate(recordings: Sequence[Recording], seed: int, radians: float = 0.3, spread: float = 0.15) -> list[Recording]:
    """Return copies as if the watch had been worn differently: rotated about a random axis and rescaled.

    Args:
        recordings: The recordings.
        seed: Seed of the random rotations and scales.
        radians: Standard deviation of each component of the rotation vector, in radians.
        spread: Largest relative change of the amplitude.

    Returns:
        One rotated copy of each.
    """
    rng = np.random.default_rng(seed)
    copies = []
    for recording in recordings:
        matrix = _rotation(rng.normal(0, radians, 3))
        vectors = recording.signal.reshape(-1, 2, 3) @ matrix.T  # both acceleration and rotation rate
        scale = np.float32(rng.uniform(1 - spread, 1 + spread))
        copies.append(replace(recording, signal=(vectors.reshape(-1, 6) * scale).astype(np.float32)))
    return copies


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation matrix of a rotation vector, whose length is the angle in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def standardise(signal: Array) -> Array:
    """Scale each channel by a fixed unit, which a device can apply too, and clip to -4..4.

    Args:
        signal: Samples `(..., 6)` as measured.

    Returns:
        An array of the same shape, float32.
    """
    scaled: Array = np.clip(signal.astype(np.float32) / _UNIT, -_LIMIT, _LIMIT).astype(np.float32)
    return scaled


def windows(recordings: Sequence[Recording], length: int, stride: int) -> tuple[Array, Array]:
    """Cut the standardised signals into windows.

    Args:
        recordings: The recordings.
        length: Samples per window.
        stride: Samples between the starts of consecutive windows.

    Returns:
        Windows `(N, length, 6)` and the exercise of each `(N,)`.
    """
    pieces, exercises = [], []
    for recording in recordings:
        views = np.lib.stride_tricks.sliding_window_view(standardise(recording.signal), length, axis=0)[::stride]
        pieces.append(views.transpose(0, 2, 1))  # (N, C, T) -> (N, T, C)
        exercises.append(np.full(len(views), recording.exercise, np.int64))
    return np.concatenate(pieces), np.concatenate(exercises)


def draw_balanced(inputs: Array, labels: Array, count: int) -> tuple[Array, Array]:
    """Draw samples at random so that every class keeps its share.

    Args:
        inputs: Inputs `(N, ...)`.
        labels: Labels `(N,)`.
        count: Number of samples to draw, less than N.

    Returns:
        The inputs and the labels of the samples.

    Raises:
        InputError: There are too few samples.
    """
    drawn = split_indices(len(labels), (count,), seed=0, labels=labels)[0]
    return inputs[drawn], labels[drawn]
