"""A training that was killed goes on to the same weights, bit for bit; a checkpoint that does not fit is refused."""

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

# Early stopping is on, and far from striking: the best weights are part of what must survive.
EPOCHS = {"keras": 15, "torch": 60}
DEADLINE_S = 120


def epoch_on_disk(folder: Path) -> int:
    try:
        return int(json.loads((folder / "checkpoint.json").read_text())["standing"]["epoch"])
    except FileNotFoundError:
        return 0


def kill_in_the_middle(child: subprocess.Popen[str], folder: Path) -> int:
    """Kills the training once some epochs are done. The epoch that the checkpoint is of."""
    deadline = time.monotonic() + DEADLINE_S
    while epoch_on_disk(folder) < 2 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    # Its worker notices that it is alone, and ends: then nobody writes here.
    seen, steady = -1, 0
    while steady < 5:
        time.sleep(0.1)
        now = epoch_on_disk(folder)
        seen, steady = now, steady + 1 if now == seen else 0
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "torch"])
def test_a_killed_training_resumes_to_the_same_weights(make_lab, kind: str) -> None:
    whole, cut = make_lab(), make_lab()
    epochs = EPOCHS[kind]
    arguments = ("--epochs", epochs, "--early-stopping", epochs, "--root", cut.root)
    child = spawn("train", "blobs", "--framework", kind, *arguments)
    folder = cut.folder(kind) / ".checkpoint"
    epoch = kill_in_the_middle(child, folder)
    assert 2 <= epoch < epochs
    assert not (cut.folder(kind) / "source").exists()

    resumed = cut.train(kind, epochs=epochs, early_stopping=epochs, resume=True)
    assert f"resuming after epoch {epoch} of {epochs}" in cut.reported()
    uninterrupted = whole.train(kind, epochs=epochs, early_stopping=epochs)
    assert resumed.training["weights_sha256"] == uninterrupted.training["weights_sha256"]
    assert resumed.history == uninterrupted.history
    assert resumed.metric_value == uninterrupted.metric_value
    assert len(resumed.history["val_loss"]) == epochs
    assert resumed.training["best_epoch"] == uninterrupted.training["best_epoch"]
    assert not folder.exists()


def cut_short(lab, kind: str) -> Path:
    """The checkpoint of a training that was interrupted after its second epoch."""
    folder = lab.folder(kind) / ".checkpoint"

    def listen(_event: object) -> None:
        if epoch_on_disk(folder) >= 2:
            raise KeyboardInterrupt

    lab.context.emit = listen
    with pytest.raises(KeyboardInterrupt):
        lab.train(kind)
    lab.context.emit = lab.events.append
    return folder / CHECKPOINT_FILE


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(lab) -> None:
    path = cut_short(lab, "torch")
    state = path.parent / json.loads(path.read_text())["file"]
    content = state.read_bytes()

    with pytest.raises(InputError) as caught:
        lab.train("torch", resume=True, seed=4, batch_size=8)
    expected = "this checkpoint is of another training: batch_size 16, now 8, seed 3, now 4; train without --resume"
    assert expected in str(caught.value)

    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="this checkpoint is truncated or damaged: its sha256 differs"):
        lab.train("torch", resume=True)
    state.write_bytes(content)

    code = lab.root / "models/blobs/torch_model.py"
    code.write_text(code.read_text() + "# a change\n")
    with pytest.raises(InputError, match="of another training: other code; train without --resume to start anew"):
        lab.train("torch", resume=True)

    assert path.exists()
    lab.train("torch", epochs=1)
    assert "an earlier training was cut short; starting anew (--resume would continue it)" in lab.reported()
    assert not path.parent.exists()


def test_resume_without_a_checkpoint_starts_from_the_beginning_and_says_so(lab) -> None:
    source = lab.train("torch", epochs=1, resume=True)
    assert "there is no checkpoint to resume from; starting from the beginning" in lab.reported()
    assert source.training["epochs_done"] == 1
