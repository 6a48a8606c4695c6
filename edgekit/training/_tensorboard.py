"""TensorBoard event files: where they lie, and when they are begun anew. The writers are the frameworks' own."""

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
    """A framework's writer of event files."""

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        """One scalar a figure, at the step `epoch`, flushed."""

    def close(self) -> None:
        """Ends the file."""


@contextmanager
def logged(course: EpochTracker, open_writer: Callable[[str], EventWriter]) -> Iterator[None]:
    """Within the block each epoch's figures are logged, where the lesson names a folder for them.

    A training from the beginning replaces the event files of its folder: two trainings in one would be drawn as one
    curve. A resumed one adds a file. Raises InputError when the folder cannot be written.
    """
    folder = course.lesson.tensorboard
    if folder is None:
        yield
        return
    _prepare(folder, fresh=course.state is None)
    writer = open_writer(str(folder))
    course.writer = writer.write
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
