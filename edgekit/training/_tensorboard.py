"""TensorBoard event files; each framework brings its own writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from edgekit.core.environment.atomic_files import mapped_write_errors
from edgekit.core.environment.requirements import Requirement
from edgekit.training._epoch_tracker import EpochTracker

TENSORBOARD = Requirement("tensorboard", "tensorboard", "tensorboard")


class EventWriter(Protocol):
    """Writer of event files of a framework."""

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write one scalar per figure at the step `epoch`, and flush."""

    def close(self) -> None:
        """Close the file."""


@contextmanager
def log_epochs(tracker: EpochTracker, open_writer: Callable[[str], EventWriter]) -> Iterator[None]:
    """Log the figures of each epoch within the block, if the job names a folder for event files.

    A training from the beginning replaces the event files in the folder, because TensorBoard draws all files of a
    folder as one curve. A resumed training adds a file.

    Args:
        tracker: The tracker of the training; its `writer` is set.
        open_writer: Opens the framework's writer for a folder.

    Raises:
        InputError: The folder cannot be written.
    """
    folder = tracker.job.tensorboard
    if folder is None:
        yield
        return
    _prepare(folder, fresh=tracker.resume_state is None)
    writer = open_writer(str(folder))
    tracker.writer = writer.write
    try:
        yield
    finally:
        writer.close()


def _prepare(folder: Path, *, fresh: bool) -> None:
    with mapped_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for path in folder.glob("events.out.tfevents.*"):
                path.unlink()
