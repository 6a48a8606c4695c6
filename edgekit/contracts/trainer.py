"""The contract of a training loop: the job it receives and the result it returns."""

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
    """One training run: the network, its data and its hyperparameters.

    Attributes:
        build: Returns the untrained network of the framework.
        spec: Hyperparameters from `model.toml` and the command line.
        inputs: Training inputs `(N, ...)` in the framework's own layout.
        labels: Training labels `(N,)`, or targets in the shape of the outputs.
        folder: The folder that the weights are written into.
        step: Name of the step, for events and messages.
        validation: Inputs and labels on which each epoch is evaluated; never trained on.
        checkpoints: Where the state after each epoch is stored; None stores nothing.
        resume: Whether to continue from the stored checkpoint.
        tensorboard: The folder for TensorBoard event files; None writes none.
        deadline_s: Value of `time.monotonic()` in seconds at which the training stops with the weights it has.
        qat: Whether quantization-aware fine-tuning follows the float training.
        emit: Receives progress events and notes.
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
    def is_classification(self) -> bool:
        """Whether labels are class indices."""
        return self.spec.loss == "cross-entropy"

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch; the last batch may be smaller."""
        return -(-len(self.inputs) // self.spec.batch_size)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        file: Name of the weights file in the job's folder.
        history: Figures of each epoch by name, such as `loss` and `val_accuracy`.
        record: Further entries for `training` in source.json: seconds, complete epochs, stop reason.
    """

    file: str
    history: Mapping[str, list[float]]
    record: Mapping[str, Any] = field(default_factory=dict)


class Trainer(ABC):
    """Abstract training loop of one framework.

    Attributes:
        name: Name of the framework, as in `--framework`.
        code: File in a model's folder whose `build()` returns the network.
        requires: Packages that a training needs.
        no_qat: Why the framework has no quantization-aware training; empty if it has.
        qat_requires: Packages that quantization-aware training needs.
    """

    name: ClassVar[str]
    code: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    no_qat: ClassVar[str] = ""
    qat_requires: ClassVar[tuple[Requirement, ...]] = ()

    @abstractmethod
    def fit(self, job: TrainingJob) -> TrainingResult:
        """Train the network and write its weights.

        Emits `Progress` after every epoch and every few batches. Training is deterministic: on one machine the same job
        gives the same weights, whether it ran without interruption or was resumed from any epoch.

        Args:
            job: The network, its data and its hyperparameters.

        Returns:
            The name of the weights file, the history and the entries for source.json.

        Raises:
            InputError: The checkpoint to resume from does not fit, or a folder cannot be written.
            StepFailed: The training diverged, or the network cannot be trained quantization-aware.
        """


TRAINERS: PluginKind[Trainer] = PluginKind("edgekit.training", "TRAINER", Trainer)  # type: ignore[type-abstract]
