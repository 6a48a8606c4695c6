"""A killed training resumes to bit-identical weights; a checkpoint that does not match the training is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from _helpers.support import spawn

from edgekit.contracts.checkpoint import CHECKPOINT_FILE
from edgekit.core.errors import InputError

# Early stopping is enabled but never triggers, so that the best weights are part of the checkpoint.
EPOCHS = {"keras": 15, "torch": 60}
DEADLINE_S = 120


def epoch_on_disk(folder: Path) -> int:
    try:
        return int(json.loads((folder / "checkpoint.json").read_text())["standing"]["epoch"])
    except FileNotFoundError:
        return 0


def kill_in_the_middle(child: subprocess.Popen[str], folder: Path) -> int:
    """Kill the training after some epochs and return the epoch of its checkpoint."""
    deadline = time.monotonic() + DEADLINE_S
    while epoch_on_disk(folder) < 2 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    # The orphaned worker ends by itself; wait until nothing writes here any more.
    epoch, steady = -1, 0
    while steady < 5:
        time.sleep(0.1)
        now = epoch_on_disk(folder)
        epoch, steady = now, steady + 1 if now == epoch else 0
    return epoch


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["keras", "torch"])
def test_a_killed_training_resumes_to_the_same_weights(make_lab, kind: str) -> None:
    whole, interrupted = make_lab(), make_lab()
    epochs = EPOCHS[kind]
    arguments = ("--epochs", epochs, "--early-stopping", epochs, "--root", interrupted.root)
    child = spawn("train", "blobs", "--framework", kind, *arguments)
    folder = interrupted.folder(kind) / ".checkpoint"
    epoch = kill_in_the_middle(child, folder)
    assert 2 <= epoch < epochs
    assert not (interrupted.folder(kind) / "source").exists()

    resumed = interrupted.train(kind, epochs=epochs, early_stopping=epochs, resume=True)
    assert f"resuming after epoch {epoch} of {epochs}" in interrupted.reported()
    uninterrupted = whole.train(kind, epochs=epochs, early_stopping=epochs)
    assert resumed.training["weights_sha256"] == uninterrupted.training["weights_sha256"]
    assert resumed.history == uninterrupted.history
    assert resumed.metric_value == uninterrupted.metric_value
    assert len(resumed.history["val_loss"]) == epochs
    assert resumed.training["best_epoch"] == uninterrupted.training["best_epoch"]
    assert not folder.exists()


def interrupt(lab, kind: str) -> Path:
    """Interrupt a training after its second epoch and return the path of its checkpoint."""
    folder = lab.folder(kind) / ".checkpoint"

    def listen(_event: object) -> None:
        if epoch_on_disk(folder) >= 2:
            raise KeyboardInterrupt

    lab.context.emit = listen
    with pytest.raises(KeyboardInterrupt):
        lab.train(kind)
    lab.context.emit = lab.events.append
    return folder / CHECKPOINT_FILE


@pytest.mark.slow
def test_a_checkpoint_of_a_different_training_or_a_damaged_one_is_refused(lab) -> None:
    path = interrupt(lab, "torch")
    state = path.parent / json.loads(path.read_text())["file"]
    content = state.read_bytes()

    with pytest.raises(InputError) as caught:
        lab.train("torch", resume=True, seed=4, batch_size=8)
    difference = "batch_size was 16, now 8, seed was 3, now 4"
    expected = f"this checkpoint belongs to a different training ({difference}); to start over, train without --resume"
    assert expected in str(caught.value)

    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"this checkpoint is truncated or damaged \(its sha256 differs\)"):
        lab.train("torch", resume=True)
    state.write_bytes(content)

    code = lab.root / "models/blobs/torch_model.py"
    code.write_text(code.read_text() + "# a change\n")
    with pytest.raises(
        InputError, match=r"different training \(different code\); to start over, train without --resume"
    ):
        lab.train("torch", resume=True)

    assert path.exists()
    lab.train("torch", epochs=1)
    assert "ignoring the checkpoint of an interrupted training; continue it with --resume" in lab.reported()
    assert not path.parent.exists()


def test_resume_without_a_checkpoint_starts_from_the_beginning_and_says_so(lab) -> None:
    source = lab.train("torch", epochs=1, resume=True)
    assert "no checkpoint to resume from; starting from the beginning" in lab.reported()
    assert source.training["epochs_done"] == 1
