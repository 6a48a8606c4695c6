"""Behaviour shared by both training loops: early stopping, time limit, TensorBoard, weight decay, schedules."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from edgekit.core.events import ProgressEvent
from edgekit.training.datasets.splits import Splits, hold_out

pytestmark = pytest.mark.slow

KINDS = pytest.mark.parametrize("kind", ["keras", "torch"])


@KINDS
def test_early_stopping_keeps_the_best_weights_and_validates_on_held_out_training_samples(lab, kind: str) -> None:
    source = lab.train(kind, epochs=30, early_stopping=2, learning_rate=0.3, schedule="constant")
    losses = source.history["val_loss"]
    best = int(np.argmin(losses))
    assert source.training["stopped"] == "early stopping"
    assert source.training["epochs_done"] == len(losses) == best + 3 < 30
    assert source.training["best_epoch"] == best + 1
    assert (source.data["train"], source.data["validation"]) == (691, 77)
    # The saved model is the one of the best epoch: a training of exactly that many epochs ends in the same weights.
    again = lab.train(kind, epochs=best + 1, early_stopping=2, learning_rate=0.3, schedule="constant")
    assert again.training["weights_sha256"] == source.training["weights_sha256"]


@KINDS
def test_events_carry_loss_metric_and_validation_figures(lab, kind: str) -> None:
    lab.train(kind, epochs=2, early_stopping=2)
    progress = [event for event in lab.events if isinstance(event, ProgressEvent)]
    assert all({"loss", "accuracy"} <= set(event.figures) for event in progress)
    ends = [event for event in progress if "val_loss" in event.figures]
    assert [event.done / event.total for event in ends] == [0.5, 1.0]
    assert set(ends[0].figures) == {"loss", "accuracy", "val_loss", "val_accuracy"}


@KINDS
def test_a_time_limit_results_in_a_regular_source(lab, kind: str) -> None:
    source = lab.train(kind, epochs=1_000_000, time_limit_s=0.001)
    assert source.training["stopped"] == "time limit"
    assert source.training["epochs_done"] == 0
    assert len(source.history["loss"]) == 1
    assert 0 <= source.metric_value <= 1
    assert "stopped by time limit after 0 of 1000000 epochs" in lab.reported()
    record = json.loads((lab.folder(kind) / "source/source.json").read_text())
    assert record["training"]["stopped"] == "time limit"
    assert not (lab.folder(kind) / ".checkpoint").exists()


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) pairs by tag, from scalar events and from the tensors that tf.summary writes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder)).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag in events.Tags()["tensors"]:
        curves[tag] = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
    return curves


@KINDS
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own imports
def test_tensorboard_reads_the_curves_of_source_json(lab, kind: str) -> None:
    lab.train(kind, epochs=1, tensorboard="")
    source = lab.train(kind, epochs=3, early_stopping=3, tensorboard="")
    curves = scalars(lab.folder(kind) / "tensorboard")
    assert set(curves) == {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    for name, values in source.history.items():
        assert [step for step, _ in curves[name]] == [1, 2, 3]
        np.testing.assert_allclose([value for _, value in curves[name]], values, rtol=1e-6)
    assert curves["learning_rate"][-1][1] < curves["learning_rate"][-2][1] < 0.003
    assert list((lab.folder(kind) / "tensorboard").iterdir())[1:] == []


def test_writing_event_files_from_torch_does_not_import_tensorflow(tmp_path) -> None:
    code = (
        "import sys; from edgekit.training.torch import _Events; events = _Events(sys.argv[1]);"
        " events.write(1, {'loss': 0.5}); events.close(); print('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
    assert scalars(tmp_path) == {"loss": [(1, 0.5)]}


def test_event_files_are_written_into_the_named_folder(lab, tmp_path) -> None:
    lab.train("torch", epochs=1, tensorboard=str(tmp_path / "runs"))
    assert list((tmp_path / "runs/blobs/torch").glob("events.out.tfevents.*"))
    assert not (lab.folder("torch") / "tensorboard").exists()


@KINDS
def test_weight_decay_shrinks_weights_and_excludes_biases(lab, kind: str) -> None:
    toml = lab.root / "models/blobs/model.toml"
    toml.write_text(toml.read_text().replace("weight_decay = 0.01", "weight_decay = 100.0"))
    lab.train(kind, epochs=3)
    weights = load_weights(lab.folder(kind) / "source")
    matrices = [value for value in weights if value.ndim == 2]
    vectors = [value for value in weights if value.ndim == 1]
    assert max(float(np.abs(value).max()) for value in matrices) < 0.1
    assert max(float(np.abs(value).max()) for value in vectors) > 0.5  # the scales of the normalisation, about 1


def load_weights(folder) -> list[np.ndarray]:
    if (folder / "weights.pt").exists():
        import torch

        return [value.numpy() for value in torch.load(folder / "weights.pt", weights_only=True).values()]
    import zipfile

    import h5py

    weights: list[np.ndarray] = []
    with zipfile.ZipFile(folder / "model.keras") as archive:
        file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    file["layers"].visititems(lambda _, node: weights.append(node[()]) if isinstance(node, h5py.Dataset) else None)
    return [value for value in weights if value.dtype == np.float32]


@KINDS
def test_a_learning_rate_that_is_too_high_is_a_one_line_error(lab, kind: str) -> None:
    from edgekit.core.errors import StepFailed

    lab_model = lab.root / "models/blobs/model.toml"
    text = lab_model.read_text().replace('loss = "cross-entropy"', 'loss = "mse"\noptimizer = "sgd"')
    text = text.replace('shape = [2]\nclasses = ["left", "right"]', "shape = [1]")
    text = text.replace("classification", "regression").replace("accuracy", "mae").replace("weight_decay = 0.01", "")
    lab_model.write_text(text)
    for name, old, new in (
        ("keras", 'layers.Dense(2, activation="softmax", name="y")', 'layers.Dense(1, name="y")'),
        ("torch", "nn.Linear(16, 2)", "nn.Linear(16, 1)"),
        ("torch", "logits if self.training else F.softmax(logits, 1)", "logits"),
    ):
        code = lab.root / f"models/blobs/{name}_model.py"
        assert old in code.read_text()
        code.write_text(code.read_text().replace(old, new))
    assert set(lab.train(kind, epochs=1).history) == {"loss", "mae"}
    with pytest.raises(StepFailed, match=r"the training diverged: (loss|mae) is (nan|inf) in epoch 1"):
        lab.train(kind, epochs=1, learning_rate=1e30, schedule="constant")


def make_splits(count: int, groups: np.ndarray | None) -> Splits:
    x, y = np.zeros((count, 1), np.float32), np.arange(count) % 2
    return Splits("n", "s", "l", x, y, x, y, x, y, x, y, groups)


def test_held_out_samples_keep_class_proportions_and_whole_groups() -> None:
    groups = np.tile(np.arange(20), 5)
    kept, held = hold_out(make_splits(100, groups), 0.2, stratify=True)
    assert sorted([*kept, *held]) == list(range(100))
    assert len(held) == 20
    assert set(groups[kept]).isdisjoint(groups[held])
    assert (np.arange(100)[held] % 2).mean() == 0.5
    again = hold_out(make_splits(100, groups), 0.2, stratify=True)
    np.testing.assert_array_equal(again[1], held)


def test_without_groups_samples_are_held_out_one_by_one() -> None:
    kept, held = hold_out(make_splits(10, None), 0.01, stratify=False)
    assert (len(kept), len(held)) == (9, 1)
