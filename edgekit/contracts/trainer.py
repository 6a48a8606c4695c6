"""What a training loop is handed and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgekit.config.model import TrainingSpec
from edgekit.contracts.checkpoint import Checkpoints
from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement
from edgekit.core.events import Listener, ignore
from edgekit.core.numerics.metrics import Array


@dataclass(frozen=True)
class TrainingJob:
    """What is to be learned, and how.

    Inputs have shape (N, ...) in the framework's own layout, labels (N,) or the shape of the outputs; `validation` is
    such a pair that judges the epochs. The weights are written into `folder`. `checkpoints` is where the state of every
    epoch is kept, and `resume` whether to go on from there; `tensorboard` the folder for event files; `deadline_s` the
    `time.monotonic()` at which to stop with what there is.
    """

    build: Callable[[], Any]
    spec: TrainingSpec
    inputs: Array
    labels: Array
    folder: Path
    step: str
    validation: tuple[Array, Array] | None = None
    checkpoints: Checkpoints | None = None
    resume: bool = False
    tensorboard: Path | None = None
    deadline_s: float | None = None
    qat: bool = False
    emit: Listener = ignore

    @property
    def classify(self) -> bool:
        """Whether labels are numbers of classes."""
        return self.spec.loss == "cross-entropy"

    @property
    def batches(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.inputs) // self.spec.batch_size)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training: the weights file that was written, and the figures of each epoch.

    `record` is what else goes into source.json's `training`: seconds, complete epochs, why it stopped.
    """

    file: str
    history: Mapping[str, list[float]]
    record: Mapping[str, Any] = field(default_factory=dict)


class Trainer(ABC):
    """A framework's training loop. `code` is the file of a model's folder whose `build()` makes the network.

    `no_qat` is the sentence that says why the framework has no quantization-aware training, empty where it has;
    `qat_requires` is what that needs to be installed.
    """

    name: ClassVar[str]
    code: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    no_qat: ClassVar[str] = ""
    qat_requires: ClassVar[tuple[Requirement, ...]] = ()

    @abstractmethod
    def fit(self, lesson: TrainingJob) -> TrainingResult:
        """Trains and writes the weights. Emits a `Progress` after every epoch and some batches.

        Seeded: the same machine gives the same weights, in one go or resumed from any epoch.
        """


TRAINERS: PluginKind[Trainer] = PluginKind("edgekit.training", "TRAINER", Trainer)  # type: ignore[type-abstract]
