"""Shoulder exercises by a smartwatch: 140 recordings of ten people, six channels at 50 Hz; from the seglearn package.

Accelerations ax, ay, az in g and rotation rates wx, wy, wz in rad/s. Each person does each of seven exercises with the
left and with the right arm. Burns et al., "Shoulder physiotherapy exercise recognition", arXiv 1802.01489.
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
from edgekit.training.datasets.packaged import read
from edgekit.training.datasets.splits import cut

SEGLEARN = Requirement("seglearn", "seglearn", "data")

NAME = "watch"
LICENCE = "BSD 3-Clause (seglearn, David Burns)"
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
# Near the deviation of each channel: 1 g and 0.5 g, 1 rad/s and 2.5 rad/s.
_UNIT = np.array([1.0, 0.5, 0.5, 1.0, 2.5, 1.0], np.float32)
_LIMIT = 4.0


@dataclass(frozen=True)
class Recording:
    """One set of repetitions: signal (T, 6), float32, as measured; the exercise, 0 to 6; the person, 1 to 10."""

    signal: NDArray[np.float32]
    exercise: int
    person: int


@dataclass(frozen=True)
class Parts:
    """Whole recordings: those of the test people, and of the others, for each purpose."""

    train: tuple[Recording, ...]
    calibration: tuple[Recording, ...]
    golden: tuple[Recording, ...]
    test: tuple[Recording, ...]


def load(data: str) -> tuple[Recording, ...]:
    """All 140. Raises InputError for another name or a file with another sha256; MissingDependency.

    The file is a pickle, which can hold any code: it is not opened unless it is the known one, bit by bit.
    """
    if data != NAME:
        raise InputError(f"unknown data '{data}'; known: {NAME}")
    content = read(data, SEGLEARN, "1.2.5", "data/watch_dataset.npy", _SHA256, "the smartwatch recordings")
    table = np.load(io.BytesIO(content), allow_pickle=True).item()
    return tuple(
        Recording(np.asarray(signal, np.float32), int(exercise), int(person))
        for signal, exercise, person in zip(table["X"], table["y"], table["subject"], strict=True)
    )


def parts(recordings: Sequence[Recording], test_people: Sequence[int], held_out: int) -> Parts:
    """Test people are in no other part. Of each exercise, calibration and golden get `held_out` recordings each.

    No recording is in two parts, so that windows of different parts share no sample however much they overlap.
    """
    test = tuple(item for item in recordings if item.person in test_people)
    others = [item for item in recordings if item.person not in test_people]
    exercises = np.array([item.exercise for item in others])
    count = held_out * len(np.unique(exercises))
    chosen = cut(len(others), (count, count), seed=0, labels=exercises)
    golden, calibration, train = (tuple(others[index] for index in part) for part in chosen)
    return Parts(train, calibration, golden, test)


def slower(recordings: Sequence[Recording]) -> list[Recording]:
    """At half the rate, 25 Hz: each sample is the mean of two. Arms do not move faster than that shows."""
    return [
        replace(item, signal=item.signal[: len(item.signal) // 2 * 2].reshape(-1, 2, 6).mean(axis=1))
        for item in recordings
    ]


def mirrored(recordings: Sequence[Recording]) -> list[Recording]:
    """Copies as if the other arm had moved: the mirror image across the watch's x axis.

    A mirror turns round the acceleration along its axis, and of rotation rates those about the two other axes.
    """
    signs = np.array([-1, 1, 1, 1, -1, -1], np.float32)
    return [replace(item, signal=item.signal * signs) for item in recordings]


def turned(recordings: Sequence[Recording], seed: int, radians: float = 0.3, spread: float = 0.15) -> list[Recording]:
    """Copies as if the watch sat otherwise on the wrist: each turned about a random axis, by `radians` or so for each
    component, and its strength changed by up to a share of `spread`. The same seed gives the same copies."""
    rng = np.random.default_rng(seed)
    copies = []
    for item in recordings:
        matrix = _rotation(rng.normal(0, radians, 3))
        vectors = item.signal.reshape(-1, 2, 3) @ matrix.T  # acceleration and rotation rate turn alike
        strength = np.float32(rng.uniform(1 - spread, 1 + spread))
        copies.append(replace(item, signal=(vectors.reshape(-1, 6) * strength).astype(np.float32)))
    return copies


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix that turns about the vector by its length in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def standardised(signal: Array) -> Array:
    """In fixed units for each channel, and clipped to -4..4, so that a device can do the same. Shape stays."""
    scaled: Array = np.clip(signal.astype(np.float32) / _UNIT, -_LIMIT, _LIMIT).astype(np.float32)
    return scaled


def windows(recordings: Sequence[Recording], length: int, stride: int) -> tuple[Array, Array]:
    """Windows (N, length, 6) of the standardised signals, one every `stride` samples, and their exercises (N,)."""
    found, exercises = [], []
    for item in recordings:
        views = np.lib.stride_tricks.sliding_window_view(standardised(item.signal), length, axis=0)[::stride]
        found.append(views.transpose(0, 2, 1))  # (N, C, T) -> (N, T, C)
        exercises.append(np.full(len(views), item.exercise, np.int64))
    return np.concatenate(found), np.concatenate(exercises)


def balanced(inputs: Array, labels: Array, count: int) -> tuple[Array, Array]:
    """`count` of the samples, drawn so that every class keeps its share. Raises InputError when there are too few."""
    chosen = cut(len(labels), (count,), seed=0, labels=labels)[0]
    return inputs[chosen], labels[chosen]
