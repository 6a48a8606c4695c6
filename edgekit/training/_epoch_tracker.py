"""Epoch bookkeeping shared by both frameworks: history, early stopping, time limit and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.contracts.trainer import TrainingJob
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import NoteEvent, ProgressEvent
from edgekit.core.units import format_seconds
from edgekit.training._schedule import learning_rate

# Batches between two Progress events: keeps a display live without an event per batch.
REPORT_EVERY_BATCHES = 20


@dataclass
class TrainingProgress:
    """Progress of a training after its latest epoch. Its fields are the keys of the progress in a checkpoint.

    Attributes:
        epoch: Number of complete epochs.
        history: Figures of each epoch by name, one list entry per epoch.
        best_epoch: Number of the epoch with the lowest validation loss, from 1; None without early stopping.
        best_loss: The validation loss of that epoch.
        seconds: Wall time of the training in seconds.
    """

    epoch: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    best_loss: float | None = None
    seconds: float = 0.0


class EpochTracker:
    """The state of one training, to which a loop reports each batch and each epoch.

    Attributes:
        job: The training job.
        progress: Complete epochs and their figures.
        timed_out: Whether the time limit has passed.
        writer: Logs the figures of an epoch, numbered from 1; None logs nothing.
        resume_state: The framework's state to resume from; None starts at the beginning.
    """

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.progress = TrainingProgress()
        self.timed_out = False
        self.writer: Callable[[int, Mapping[str, float]], None] | None = None
        self.resume_state = self._resume() if job.resume else None
        self._started_s = time.monotonic() - self.progress.seconds

    def _resume(self) -> bytes | None:
        checkpoints, emit, step = self.job.checkpoints, self.job.emit, self.job.step
        checkpoint = checkpoints.load() if checkpoints else None
        if checkpoints is None or checkpoint is None:
            emit(NoteEvent(step, "no checkpoint to resume from; starting from the beginning"))
            return None
        try:
            self.progress = TrainingProgress(**checkpoint.progress)
        except TypeError as error:
            raise InputError(f"{checkpoints.path}: this checkpoint has a missing or mistyped key ({error})") from None
        emit(NoteEvent(step, f"resuming after epoch {self.progress.epoch} of {self.job.spec.epochs}"))
        return checkpoint.state

    @property
    def _patience_exceeded(self) -> bool:
        patience, best = self.job.spec.early_stopping, self.progress.best_epoch
        return patience is not None and best is not None and self.progress.epoch - best >= patience

    @property
    def finished(self) -> bool:
        """Whether no further epoch is to be trained."""
        return self.timed_out or self._patience_exceeded or self.progress.epoch >= self.job.spec.epochs

    @property
    def stop_reason(self) -> str | None:
        """Why the training stopped before its last epoch; None if it did not."""
        if self.progress.epoch >= self.job.spec.epochs:
            return None
        if self._patience_exceeded:
            return "early stopping"
        return "time limit" if self.timed_out else None

    def batch_learning_rate(self, batch: int) -> float:
        """Return the learning rate of a batch of the current epoch, counted from 0."""
        return learning_rate(self.job.spec, self.progress.epoch + batch / self.job.batches_per_epoch)

    def end_batch(self, batch: int, figures: Callable[[], Mapping[str, float]]) -> bool:
        """Record the end of a batch and emit `Progress` every few batches.

        Args:
            batch: Number of the batch in its epoch, from 0.
            figures: Returns the figures of the epoch so far; called only when they are emitted.

        Returns:
            Whether the time limit has passed and the epoch must be aborted.
        """
        deadline = self.job.deadline_s
        self.timed_out = deadline is not None and time.monotonic() >= deadline
        last = batch + 1 == self.job.batches_per_epoch
        if last or self.timed_out or (batch + 1) % REPORT_EVERY_BATCHES == 0:
            self._emit_progress(batch + 1, figures())
        return self.timed_out and not last

    def _emit_progress(self, batches: int, figures: Mapping[str, float]) -> None:
        done = self.progress.epoch * self.job.batches_per_epoch + batches
        self.job.emit(ProgressEvent(self.job.step, done, self.job.spec.epochs * self.job.batches_per_epoch, figures))

    def end_epoch(self, figures: Mapping[str, float], *, complete: bool = True) -> bool:
        """Record the figures of an epoch.

        An epoch that the time limit aborted is added to the history but not counted.

        Args:
            figures: The figures by name; with early stopping they must contain `val_loss`.
            complete: Whether all batches of the epoch were trained.

        Returns:
            Whether early stopping must keep the weights of this epoch: they are the best so far.

        Raises:
            StepFailed: A figure is not finite.
        """
        progress, spec = self.progress, self.job.spec
        _check_finite(figures, progress.epoch + 1)
        for name, value in figures.items():
            progress.history.setdefault(name, []).append(value)
        if self.writer is not None:
            self.writer(
                progress.epoch + 1,
                {**figures, "learning_rate": self.batch_learning_rate(self.job.batches_per_epoch - 1)},
            )
        progress.epoch += complete
        progress.seconds = self.seconds
        if "val_loss" in figures:
            self._emit_progress(0, figures)
        if spec.early_stopping is None:
            return False
        improved = progress.best_loss is None or figures["val_loss"] < progress.best_loss
        if improved:
            progress.best_loss, progress.best_epoch = figures["val_loss"], len(progress.history["val_loss"])
        return improved

    def save(self, state: Callable[[], bytes]) -> None:
        """Write the checkpoint of the epoch that ended, unless the time limit aborted it.

        Args:
            state: Returns the serialized weights and optimizer state; called only if a checkpoint is written.

        Raises:
            InputError: The folder cannot be written.
            DiskFull: The disk is full.
        """
        complete = len(self.progress.history.get("loss", ())) == self.progress.epoch
        if complete and self.job.checkpoints is not None:
            self.job.checkpoints.save(asdict(self.progress), state())

    @property
    def seconds(self) -> float:
        """Wall time of the training in seconds, including the runs that it was resumed from."""
        return time.monotonic() - self._started_s

    def record(self) -> dict[str, Any]:
        """Return the entries for source.json, and emit a note if the training stopped early."""
        progress = self.progress
        if self.stop_reason:
            epochs = f"{progress.epoch} of {self.job.spec.epochs} epochs"
            detail = f"stopped by {self.stop_reason} after {epochs} and {format_seconds(self.seconds)}"
            self.job.emit(NoteEvent(self.job.step, detail))
        entries = {"epochs_done": progress.epoch, "best_epoch": progress.best_epoch, "stopped": self.stop_reason}
        return {
            "seconds": round(self.seconds, 3),
            **{key: value for key, value in entries.items() if value is not None},
        }


def _check_finite(figures: Mapping[str, float], epoch: int) -> None:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise StepFailed(f"the training diverged: {name} is {value} in epoch {epoch}; try a lower learning rate")
