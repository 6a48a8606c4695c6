"""The course of a training, without a framework."""

from pathlib import Path

import numpy as np
import pytest

from edgekit.config.model import TrainingSpec
from edgekit.contracts.checkpoint import Checkpoints
from edgekit.contracts.trainer import TrainingJob
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Noted, Progress
from edgekit.training._epoch_tracker import EpochTracker


def lesson(events, store=None, **changes):
    own = {name: changes.pop(name) for name in ("resume", "deadline_s") if name in changes}
    spec = TrainingSpec(**{"epochs": 5, "batch_size": 4, "learning_rate": 0.1, "loss": "mse", **changes})
    inputs, labels = np.zeros((10, 1), np.float32), np.zeros(10, np.float32)
    return TrainingJob(
        lambda: None, spec, inputs, labels, Path(), "train x", checkpoints=store, emit=events.append, **own
    )


def run(course, losses):
    """Epochs with these validation losses, until the course is over; which of them were the best so far."""
    better = []
    for loss in losses:
        if course.over:
            break
        better.append(course.epoch_done({"loss": 1.0, "val_loss": loss}))
        course.save(lambda: b"state")
    return better


def test_early_stopping_waits_for_its_patience_and_names_the_best_epoch(events):
    course = EpochTracker(lesson(events, early_stopping=2))
    assert run(course, [3.0, 1.0, 1.0, 2.0, 0.1]) == [True, True, False, False]
    record = course.record()
    assert (record["epochs_done"], record["best_epoch"], record["stopped"]) == (4, 2, "early stopping")
    assert "stopped by early stopping after 4 of 5 epochs and " in events[-1].detail


def test_a_better_epoch_begins_the_patience_anew(events):
    course = EpochTracker(lesson(events, early_stopping=2))
    assert run(course, [3.0, 3.0, 2.0, 2.0, 1.0]) == [True, False, True, False, True]
    assert course.stopped is None


def test_validation_without_early_stopping_only_looks_on(events):
    course = EpochTracker(lesson(events))
    assert run(course, [1.0, 2.0, 3.0, 4.0, 5.0]) == [False] * 5
    assert "best_epoch" not in course.record()
    assert [event.figures["val_loss"] for event in events if isinstance(event, Progress)] == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverges_is_one_sentence(events, value):
    course = EpochTracker(lesson(events))
    with pytest.raises(StepFailed) as caught:
        course.epoch_done({"loss": value})
    assert str(caught.value) == f"the training diverged: loss is {value} in epoch 1; try a lower learning rate"


def test_the_time_limit_breaks_an_epoch_off_which_then_does_not_count(events, tmp_path):
    store = Checkpoints(tmp_path, {})
    course = EpochTracker(lesson(events, store, deadline_s=0.0))
    assert course.batch_done(0, lambda: {"loss": 1.0}) is True
    course.epoch_done({"loss": 1.0}, complete=False)
    course.save(lambda: b"state")
    assert course.over
    assert course.record() | {"seconds": 0} == {"seconds": 0, "epochs_done": 0, "stopped": "time limit"}
    assert store.load() is None


def test_time_that_is_up_with_the_last_batch_has_stopped_nothing(events):
    course = EpochTracker(lesson(events, epochs=1, deadline_s=0.0))
    assert course.batch_done(2, lambda: {"loss": 1.0}) is False
    course.epoch_done({"loss": 1.0})
    assert course.stopped is None


def test_a_resumed_course_stands_where_the_other_was(events, tmp_path):
    store = Checkpoints(tmp_path, {})
    before = EpochTracker(lesson(events, store, early_stopping=3))
    run(before, [2.0, 1.0, 4.0])
    after = EpochTracker(lesson(events, store, early_stopping=3, resume=True))
    assert after.state == b"state"
    assert after.standing == before.standing
    assert run(after, [5.0, 6.0]) == [False, False]
    assert after.stopped is None


def test_a_course_that_was_over_is_over_when_resumed(events, tmp_path):
    store = Checkpoints(tmp_path, {})
    run(EpochTracker(lesson(events, store, early_stopping=1)), [1.0, 2.0, 3.0])
    assert EpochTracker(lesson(events, store, early_stopping=1, resume=True)).over


def test_a_standing_with_other_keys_is_refused(events, tmp_path):
    store = Checkpoints(tmp_path, {})
    store.save({"epoch": 1, "colour": "red"}, b"state")
    with pytest.raises(InputError, match="lacks or mistypes a key"):
        EpochTracker(lesson(events, store, resume=True))


def test_progress_is_told_at_the_end_of_an_epoch_and_every_twenty_batches(events):
    course = EpochTracker(lesson(events, batch_size=1, epochs=1))
    for batch in range(10):
        course.batch_done(batch, lambda: {"loss": 0.5})
    assert events == [Progress("train x", 10, 10, {"loss": 0.5})]
    assert not any(isinstance(event, Noted) for event in events)
