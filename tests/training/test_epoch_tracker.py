"""The epoch bookkeeping of a training, without a framework."""

from pathlib import Path

import numpy as np
import pytest

from edgekit.config.model import TrainingSpec
from edgekit.contracts.checkpoint import Checkpoints
from edgekit.contracts.trainer import TrainingJob
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import NoteEvent, ProgressEvent
from edgekit.training._epoch_tracker import EpochTracker


def make_job(events, checkpoints=None, **changes):
    options = {name: changes.pop(name) for name in ("resume", "deadline_s") if name in changes}
    spec = TrainingSpec(**{"epochs": 5, "batch_size": 4, "learning_rate": 0.1, "loss": "mse", **changes})
    inputs, labels = np.zeros((10, 1), np.float32), np.zeros(10, np.float32)
    return TrainingJob(
        lambda: None, spec, inputs, labels, Path(), "train x", checkpoints=checkpoints, emit=events.append, **options
    )


def run(tracker, losses):
    """Run epochs with these validation losses until the tracker has finished; return which were the best so far."""
    improved = []
    for loss in losses:
        if tracker.finished:
            break
        improved.append(tracker.end_epoch({"loss": 1.0, "val_loss": loss}))
        tracker.save(lambda: b"state")
    return improved


def test_early_stopping_waits_for_its_patience_and_names_the_best_epoch(events):
    tracker = EpochTracker(make_job(events, early_stopping=2))
    assert run(tracker, [3.0, 1.0, 1.0, 2.0, 0.1]) == [True, True, False, False]
    record = tracker.record()
    assert (record["epochs_done"], record["best_epoch"], record["stopped"]) == (4, 2, "early stopping")
    assert "stopped by early stopping after 4 of 5 epochs and " in events[-1].detail


def test_an_improved_epoch_resets_the_patience(events):
    tracker = EpochTracker(make_job(events, early_stopping=2))
    assert run(tracker, [3.0, 3.0, 2.0, 2.0, 1.0]) == [True, False, True, False, True]
    assert tracker.stop_reason is None


def test_validation_without_early_stopping_does_not_stop_the_training(events):
    tracker = EpochTracker(make_job(events))
    assert run(tracker, [1.0, 2.0, 3.0, 4.0, 5.0]) == [False] * 5
    assert "best_epoch" not in tracker.record()
    assert [event.figures["val_loss"] for event in events if isinstance(event, ProgressEvent)] == [
        1.0,
        2.0,
        3.0,
        4.0,
        5.0,
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverges_is_a_one_line_error(events, value):
    tracker = EpochTracker(make_job(events))
    with pytest.raises(StepFailed) as caught:
        tracker.end_epoch({"loss": value})
    assert str(caught.value) == f"the training diverged: loss is {value} in epoch 1; try a lower learning rate"


def test_the_time_limit_aborts_an_epoch_which_then_does_not_count(events, tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    tracker = EpochTracker(make_job(events, checkpoints, deadline_s=0.0))
    assert tracker.end_batch(0, lambda: {"loss": 1.0}) is True
    tracker.end_epoch({"loss": 1.0}, complete=False)
    tracker.save(lambda: b"state")
    assert tracker.finished
    assert tracker.record() | {"seconds": 0} == {"seconds": 0, "epochs_done": 0, "stopped": "time limit"}
    assert checkpoints.load() is None


def test_a_time_limit_that_passes_with_the_last_batch_stops_nothing(events):
    tracker = EpochTracker(make_job(events, epochs=1, deadline_s=0.0))
    assert tracker.end_batch(2, lambda: {"loss": 1.0}) is False
    tracker.end_epoch({"loss": 1.0})
    assert tracker.stop_reason is None


def test_a_resumed_training_continues_where_the_other_stopped(events, tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    before = EpochTracker(make_job(events, checkpoints, early_stopping=3))
    run(before, [2.0, 1.0, 4.0])
    after = EpochTracker(make_job(events, checkpoints, early_stopping=3, resume=True))
    assert after.resume_state == b"state"
    assert after.progress == before.progress
    assert run(after, [5.0, 6.0]) == [False, False]
    assert after.stop_reason is None


def test_a_training_that_had_finished_is_finished_when_resumed(events, tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    run(EpochTracker(make_job(events, checkpoints, early_stopping=1)), [1.0, 2.0, 3.0])
    assert EpochTracker(make_job(events, checkpoints, early_stopping=1, resume=True)).finished


def test_progress_with_unknown_keys_is_refused(events, tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save({"epoch": 1, "colour": "red"}, b"state")
    with pytest.raises(InputError, match="has a missing or mistyped key"):
        EpochTracker(make_job(events, checkpoints, resume=True))


def test_progress_is_reported_at_the_end_of_an_epoch_and_every_twenty_batches(events):
    tracker = EpochTracker(make_job(events, batch_size=1, epochs=1))
    for batch in range(10):
        tracker.end_batch(batch, lambda: {"loss": 0.5})
    assert events == [ProgressEvent("train x", 10, 10, {"loss": 0.5})]
    assert not any(isinstance(event, NoteEvent) for event in events)
