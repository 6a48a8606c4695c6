"""A small model with everything that a checkpoint must restore: dropout, batch statistics, Adam's moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.environment.project import open_project
from edgekit.core.events import Event
from edgekit.core.records.source import SourceModel
from edgekit.stages.context import Context
from edgekit.stages.models.train import TrainOptions, train_one
from edgekit.workers.pool import WorkerPool

FILES = {
    "model.toml": """
title = "Two blobs"
task = "classification"
metric = "accuracy"
[input]
name = "x"
shape = [8]
[output]
name = "y"
shape = [2]
classes = ["left", "right"]
[data]
default = "blobs"
licence = "made by the model's own data.py"
golden = 16
calibration = 16
test = 100
[training]
epochs = 40
batch_size = 16
learning_rate = 0.003
final_learning_rate = 0.0001
warmup_epochs = 1.5
weight_decay = 0.01
loss = "cross-entropy"
seed = 3
""",
    "data.py": """
import numpy as np
from edgekit.training.datasets.splits import assemble, digest, split_indices

def load(data, spec):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 900)
    x = rng.normal(0, 2, (900, 8)).astype(np.float32) + y[:, None].astype(np.float32)
    parts = split_indices(900, (16, 16, 100), 0, y)
    return assemble(data, digest(x, y), "none", x, y, parts)
""",
    "keras_model.py": """
import keras
from keras import layers

def build():
    x = keras.Input((8,), name="x")
    h = layers.Dropout(0.2)(layers.BatchNormalization()(layers.Dense(16, activation="relu")(x)))
    return keras.Model(x, layers.Dense(2, activation="softmax", name="y")(h))
""",
    "torch_model.py": """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 2)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        logits = self.head(self.drop(self.norm(F.relu(self.hidden(x)))))
        return logits if self.training else F.softmax(logits, 1)

def build():
    return Net()
""",
}


class Lab:
    """A project with the model `blobs` and warm workers; `events` collects the events of its trainings."""

    def __init__(self, root: Path, pool: WorkerPool) -> None:
        self.root = root
        self.events: list[Event] = []
        self.context = Context(open_project(root), pool, self.events.append)

    def train(self, kind: str, model: str = "blobs", **options: object) -> SourceModel:
        """Train the model once."""
        return train_one(self.context, model, kind, TrainOptions(**options))

    def folder(self, kind: str, model: str = "blobs") -> Path:
        """Return `build/<model>/<kind>`."""
        return self.root / "build" / model / kind

    def reported(self) -> str:
        """Return the details of all events, one per line."""
        return "\n".join(str(getattr(event, "detail", "")) for event in self.events)


@pytest.fixture
def make_lab(tmp_path_factory: pytest.TempPathFactory, pool: WorkerPool) -> Callable[[], Lab]:
    """Return a factory of separate projects."""

    def make() -> Lab:
        root = tmp_path_factory.mktemp("lab")
        (root / "models/blobs").mkdir(parents=True)
        for name, text in FILES.items():
            (root / "models/blobs" / name).write_text(text)
        return Lab(root, pool)

    return make


@pytest.fixture
def lab(make_lab: Callable[[], Lab]) -> Lab:
    """Return one project."""
    return make_lab()
