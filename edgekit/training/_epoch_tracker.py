"""How a training goes, the same in both frameworks: history, early stopping, time limit, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.contracts.trainer import TrainingJob
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Noted, Progress
from edgekit.core.units import format_seconds
from edgekit.training._schedule import learning_rate

_REPORT_EVERY = 20
"""Batches between two Progress events."""


@dataclass
class TrainingProgress:
    """How far a training is: complete epochs, the figures of each, the best of them, wall seconds. Goes to disk."""

    epoch: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    best_loss: float | None = None
    seconds: float = 0.0


class EpochTracker:
    """Follows one training. A loop tells it of each batch and each epoch, and asks whether it is `over`."""

    def __init__(self, lesson: TrainingJob) -> None:
        self.lesson = lesson
        self.standing = TrainingProgress()
        self.late = False
        self.writer: Callable[[int, Mapping[str, float]], None] | None = None
        """Logs the figures of an epoch, numbered from 1."""
        self.state = self._resume() if lesson.resume else None
        """The framework's state to go on from; None to start at the beginning."""
        self._started_s = time.monotonic() - self.standing.seconds

    def _resume(self) -> bytes | None:
        store, emit, step = self.lesson.checkpoints, self.lesson.emit, self.lesson.step
        found = store.load() if store else None
        if store is None or found is None:
            emit(Noted(step, "there is no checkpoint to resume from; starting from the beginning"))
            return None
        try:
            self.standing = TrainingProgress(**found.standing)
        except TypeError as error:
            raise InputError(f"{store.path}: this checkpoint lacks or mistypes a key ({error})") from None
        emit(Noted(step, f"resuming after epoch {self.standing.epoch} of {self.lesson.spec.epochs}"))
        return found.state

    @property
    def _patience_is_over(self) -> bool:
        patience, best = self.lesson.spec.early_stopping, self.standing.best_epoch
        return patience is not None and best is not None and self.standing.epoch - best >= patience

    @property
    def over(self) -> bool:
        """Whether there is no further epoch."""
        return self.late or self._patience_is_over or self.standing.epoch >= self.lesson.spec.epochs

    @property
    def stopped(self) -> str | None:
        """Why it stopped before its last epoch, if it did."""
        if self.standing.epoch >= self.lesson.spec.epochs:
            return None
        if self._patience_is_over:
            return "early stopping"
        return "time limit" if self.late else None

    def rate(self, batch: int) -> float:
        """The learning rate of a batch of the current epoch."""
        return learning_rate(self.lesson.spec, self.standing.epoch + batch / self.lesson.batches)

    def batch_done(self, batch: int, figures: Callable[[], Mapping[str, float]]) -> bool:
        """Tells of the progress now and then. Returns whether time is up, and the epoch to be broken off."""
        deadline = self.lesson.deadline_s
        self.late = deadline is not None and time.monotonic() >= deadline
        last = batch + 1 == self.lesson.batches
        if last or self.late or (batch + 1) % _REPORT_EVERY == 0:
            self._progress(batch + 1, figures())
        return self.late and not last

    def _progress(self, batches: int, figures: Mapping[str, float]) -> None:
        done = self.standing.epoch * self.lesson.batches + batches
        self.lesson.emit(Progress(self.lesson.step, done, self.lesson.spec.epochs * self.lesson.batches, figures))

    def epoch_done(self, figures: Mapping[str, float], *, complete: bool = True) -> bool:
        """Takes down the figures of an epoch. Returns whether its weights are the best so far, and to be kept.

        An epoch that the time limit broke off is in the history, but does not count. Raises StepFailed when a figure is
        not finite.
        """
        here, spec = self.standing, self.lesson.spec
        _refuse_divergence(figures, here.epoch + 1)
        for name, value in figures.items():
            here.history.setdefault(name, []).append(value)
        if self.writer is not None:
            self.writer(here.epoch + 1, {**figures, "learning_rate": self.rate(self.lesson.batches - 1)})
        here.epoch += complete
        here.seconds = self.seconds
        if "val_loss" in figures:
            self._progress(0, figures)
        if spec.early_stopping is None:
            return False
        better = here.best_loss is None or figures["val_loss"] < here.best_loss
        if better:
            here.best_loss, here.best_epoch = figures["val_loss"], len(here.history["val_loss"])
        return better

    def save(self, state: Callable[[], bytes]) -> None:
        """Writes the checkpoint of the epoch that ended."""
        complete = len(self.standing.history.get("loss", ())) == self.standing.epoch
        if complete and self.lesson.checkpoints is not None:
            self.lesson.checkpoints.save(asdict(self.standing), state())

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, that of the runs it was resumed from with it."""
        return time.monotonic() - self._started_s

    def record(self) -> dict[str, Any]:
        """What source.json says of it. An early end is also told."""
        here = self.standing
        if self.stopped:
            epochs = f"{here.epoch} of {self.lesson.spec.epochs} epochs"
            detail = f"stopped by {self.stopped} after {epochs} and {format_seconds(self.seconds)}"
            self.lesson.emit(Noted(self.lesson.step, detail))
        found = {"epochs_done": here.epoch, "best_epoch": here.best_epoch, "stopped": self.stopped}
        return {
            "seconds": round(self.seconds, 3),
            **{key: value for key, value in found.items() if value is not None},
        }


def _refuse_divergence(figures: Mapping[str, float], epoch: int) -> None:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise StepFailed(f"the training diverged: {name} is {value} in epoch {epoch}; try a lower learning rate")
