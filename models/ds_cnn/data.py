"""Two seconds of a smartwatch: which of seven exercises is it? The people of the test are in no other part."""

from edgekit.config.model import ModelSpec
from edgekit.training.datasets import watch
from edgekit.training.datasets.splits import Splits, digest

TEST_PEOPLE = (8, 9, 10)
LENGTH = 100  # samples at 50 Hz
STRIDE = 20
HELD_OUT = 1  # recordings of each exercise, for calibration and for golden samples


def load(data: str, spec: ModelSpec) -> Splits:
    """Windows (N, 100, 6, 1), in the units of `watch.standardised`."""
    recordings = watch.load(data)
    parts = watch.parts(recordings, TEST_PEOPLE, HELD_OUT)
    train, train_labels = watch.windows(parts.train, LENGTH, STRIDE)
    held_out = {
        part: watch.balanced(*watch.windows(getattr(parts, part), LENGTH, STRIDE), getattr(spec.data, part))
        for part in ("calibration", "golden", "test")
    }
    arrays = {"train_inputs": train, "train_labels": train_labels}
    for part, (inputs, labels) in held_out.items():
        arrays |= {f"{part}_inputs": inputs, f"{part}_labels": labels}
    arrays = {name: array[..., None] if name.endswith("inputs") else array for name, array in arrays.items()}
    sha256 = digest(*(recording.signal for recording in recordings))
    return Splits(watch.NAME, sha256, watch.LICENCE, **arrays)
