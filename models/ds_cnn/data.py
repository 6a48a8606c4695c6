"""Four seconds of a smartwatch: identify one of seven exercises. People of the test set are in no other part."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import watch
from edgekit.training.datasets.splits import Splits, digest

TEST_PEOPLE = (8, 9, 10)
HELD_OUT = 1  # recordings of each exercise for calibration, and for golden samples
LENGTH = 100  # samples at 25 Hz
STRIDE = 20
TRAIN_STRIDE = 40


def load(data: str, spec: ModelSpec) -> Splits:
    """Return windows `(N, 100, 6, 1)` in the units of `watch.standardise`; training adds mirrored, rotated copies."""
    recordings = watch.load(data)
    parts = watch.split_recordings(watch.halve_rate(recordings), TEST_PEOPLE, HELD_OUT)
    arms = [*parts.train, *watch.mirror(parts.train)]
    windows = {"train": watch.windows([*arms, *watch.rotate(arms, seed=0)], LENGTH, TRAIN_STRIDE)}
    for part in ("calibration", "golden", "test"):
        candidates = watch.windows(getattr(parts, part), LENGTH, STRIDE)
        windows[part] = watch.draw_balanced(*candidates, getattr(spec.data, part))
    arrays = {f"{part}_inputs": inputs[..., None] for part, (inputs, _) in windows.items()}
    arrays |= {f"{part}_labels": labels for part, (_, labels) in windows.items()}
    sha256 = digest(*(recording.signal for recording in recordings))
    return Splits(watch.NAME, sha256, watch.LICENCE, **arrays)
