"""What a training loop is handed and what it gives back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgekit.config.model import TrainingSpec
from edgekit.core.events import Listener
from edgekit.core.metrics import Array
from edgekit.core.requirements import Requirement


@dataclass(frozen=True)
class Fit:
    """The result of a training: the weights file that was written, and the loss (and metric) of each epoch."""

    file: str
    history: Mapping[str, list[float]]


class Trainer(ABC):
    """A framework's training loop. `code` is the file of a model's folder whose `build()` makes the network."""

    name: ClassVar[str]
    code: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]

    @abstractmethod
    def fit(
        self,
        build: Callable[[], Any],
        spec: TrainingSpec,
        inputs: Array,
        labels: Array,
        folder: Path,
        *,
        step: str,
        emit: Listener,
    ) -> Fit:
        """Trains on inputs of shape (N, ...) in the framework's own layout, and writes the weights into `folder`.

        Emits a `Progress` after every epoch and some batches. Seeded: the same machine gives the same weights.
        """


def decayed(spec: TrainingSpec, progress: float) -> float:
    """The learning rate at `progress` (0 to 1) of the training: cosine decay to `final_learning_rate` (SGDR, arXiv
    1608.03983, without restarts), or constant where none is set."""

    if spec.final_learning_rate is None:
        return spec.learning_rate
    span = spec.learning_rate - spec.final_learning_rate
    return spec.final_learning_rate + 0.5 * span * (1 + math.cos(math.pi * min(progress, 1.0)))
