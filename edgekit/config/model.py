"""`model.toml`: what a reference model is, what it learns, and what is asked of its artifacts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgekit.config.door import STRICT, read_toml
from edgekit.config.types import Budgets, Positive, PositiveInt, Precision
from edgekit.core.budgets import Budget
from edgekit.core.tolerances import Tolerances, for_precision

MODEL_FILE = "model.toml"


@dataclass(frozen=True)
class InputSpec:
    """The input without its batch dimension, channels last; `range` is what the values keep within."""

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32"] = "float32"
    layout: Literal["HWC", "TC"] | None = None
    range: tuple[float, float] | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.range is not None and not -math.inf < self.range[0] < self.range[1] < math.inf:
            raise ValueError(f"range must be two finite numbers, the lower one first (got {list(self.range)})")


@dataclass(frozen=True)
class OutputSpec:
    """The output without its batch dimension; `classes` names its elements for a classifier."""

    name: str
    shape: tuple[PositiveInt, ...]
    classes: tuple[str, ...] = ()

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DataSpec:
    """What the model learns from when the user points at nothing else, under which licence."""

    default: str
    licence: str
    description: str = ""
    golden: PositiveInt = 64
    calibration: PositiveInt = 256
    test: PositiveInt = 1000

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class TrainingSpec:
    """Hyperparameters, the same for both frameworks."""

    epochs: Annotated[int, Field(ge=0)]
    batch_size: PositiveInt
    learning_rate: Positive
    loss: Literal["cross-entropy", "mse"]
    optimizer: Literal["adam", "sgd"] = "adam"
    final_learning_rate: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ModelSpec:
    """The whole file. `tolerances` are by precision, and override the defaults figure by figure."""

    title: str
    task: Literal["classification", "regression"]
    metric: Literal["accuracy", "mae"]
    input: InputSpec
    output: OutputSpec
    data: DataSpec
    training: TrainingSpec
    tolerances: dict[Precision, Tolerances] = field(default_factory=dict)
    budgets: tuple[Budgets, ...] = ()

    __pydantic_config__ = STRICT

    def tolerances_for(self, precision: str) -> Tolerances:
        """The defaults of the precision, with this model's figures in their place."""
        return for_precision(precision, {str(key): value for key, value in self.tolerances.items()}.get(precision))

    def budget_list(self, origin: str) -> tuple[Budget, ...]:
        """Every budget of the file."""
        return tuple(budget for table in self.budgets for budget in table.table().budgets(origin))


def load_model_spec(folder: Path) -> ModelSpec:
    """The folder's model.toml. Raises InputError with file and key."""
    return read_toml(folder / MODEL_FILE, ModelSpec, "model description")
