"""One exercise is normal, the six others are anomalies. The people of the test are in no other part."""

import numpy as np

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import watch
from edgekit.training.datasets.splits import Splits, digest

NORMAL = watch.EXERCISES.index("ROW")
TEST_PEOPLE = (8, 9, 10)
LENGTH = 128  # samples at 50 Hz
TRAIN_STRIDE = 3
STRIDE = 8
HELD_OUT = 3  # recordings of the normal exercise, for calibration and for golden samples: of one arm, ranges are narrow
FRAME, HOP, BINS = 64, 16, 16
FLOOR, SPAN = 0.3, 5.0
"""Of the logarithm: what is small against the floor hardly counts; a span above it is 1."""


def load(data: str, spec: ModelSpec) -> Splits:
    """Features (N, 480) of windows, see `features`. Only the test has anomalies: label 1."""
    recordings = watch.load(data)
    test = [recording for recording in recordings if recording.person in TEST_PEOPLE]
    normal = [recording for recording in recordings if recording.exercise == NORMAL]
    parts = watch.split_recordings(normal, TEST_PEOPLE, HELD_OUT)
    train, train_labels = watch.windows(parts.train, LENGTH, TRAIN_STRIDE)
    arrays = {"train_inputs": features(train), "train_labels": np.zeros_like(train_labels)}
    for part, some in (("calibration", parts.calibration), ("golden", parts.golden), ("test", test)):
        windows, exercises = watch.windows(some, LENGTH, STRIDE)
        inputs, labels = watch.draw_balanced(windows, (exercises != NORMAL).astype(np.int64), getattr(spec.data, part))
        arrays |= {f"{part}_inputs": features(inputs), f"{part}_labels": labels}
    sha256 = digest(*(recording.signal for recording in recordings))
    return Splits(watch.NAME, sha256, watch.LICENCE, **arrays)


def features(windows: np.ndarray) -> np.ndarray:
    """Log magnitudes of the lowest 16 frequencies in five frames of six channels: (N, 128, 6) -> (N, 480).

    As MLPerf Tiny takes five frames of a log spectrogram of sound. Scaled by fixed figures, and clipped to 0..1.
    """
    starts = range(0, LENGTH - FRAME + 1, HOP)
    frames = np.stack([windows[:, at : at + FRAME] for at in starts], axis=1)  # (N, 5, 64, 6)
    spectra = np.fft.rfft(frames * np.hanning(FRAME)[:, None], axis=2)[:, :, :BINS]  # (N, 5, 16, 6)
    scaled = np.minimum(np.log1p(np.abs(spectra) / FLOOR) / SPAN, 1.0)
    return scaled.reshape(len(windows), -1).astype(np.float32)
