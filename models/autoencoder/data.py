"""Anomaly detection: one exercise is normal, six are anomalies. People of the test set are in no other part."""

import numpy as np

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import watch
from edgekit.training.datasets.splits import Splits, digest

NORMAL = watch.EXERCISES.index("ROW")
TEST_PEOPLE = (8, 9, 10)
LENGTH = 128  # samples at 50 Hz
TRAIN_STRIDE = 3
STRIDE = 8
# Recordings of the normal exercise for calibration, and for golden samples: fewer might all be of one arm, whose values
# span too narrow a range.
HELD_OUT = 3
FRAME, HOP, BINS = 64, 16, 16
# Of the logarithm: magnitudes far below the floor map to about 0, and log1p(magnitude / FLOOR) = SPAN maps to 1.
FLOOR, SPAN = 0.3, 5.0


def load(data: str, spec: ModelSpec) -> Splits:
    """Return features `(N, 480)` of windows, see `features`. Only the test set contains anomalies, label 1."""
    recordings = watch.load(data)
    test = [recording for recording in recordings if recording.person in TEST_PEOPLE]
    normal = [recording for recording in recordings if recording.exercise == NORMAL]
    parts = watch.split_recordings(normal, TEST_PEOPLE, HELD_OUT)
    train, train_labels = watch.windows(parts.train, LENGTH, TRAIN_STRIDE)
    arrays = {"train_inputs": features(train), "train_labels": np.zeros_like(train_labels)}
    for part, selected in (("calibration", parts.calibration), ("golden", parts.golden), ("test", test)):
        windows, exercises = watch.windows(selected, LENGTH, STRIDE)
        inputs, labels = watch.draw_balanced(windows, (exercises != NORMAL).astype(np.int64), getattr(spec.data, part))
        arrays |= {f"{part}_inputs": features(inputs), f"{part}_labels": labels}
    sha256 = digest(*(recording.signal for recording in recordings))
    return Splits(watch.NAME, sha256, watch.LICENCE, **arrays)


def features(windows: np.ndarray) -> np.ndarray:
    """Compute log magnitudes of the lowest 16 frequencies in five frames of six channels: (N, 128, 6) -> (N, 480).

    MLPerf Tiny likewise uses five frames of a log spectrogram of sound. Values are scaled and clipped to 0..1.
    """
    starts = range(0, LENGTH - FRAME + 1, HOP)
    frames = np.stack([windows[:, start : start + FRAME] for start in starts], axis=1)  # (N, 5, 64, 6)
    spectra = np.fft.rfft(frames * np.hanning(FRAME)[:, None], axis=2)[:, :, :BINS]  # (N, 5, 16, 6)
    scaled = np.minimum(np.log1p(np.abs(spectra) / FLOOR) / SPAN, 1.0)
    return scaled.reshape(len(windows), -1).astype(np.float32)
