"""`model.toml`: what a reference model is, what it learns, and what is asked of its artifacts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgekit.config.loader import STRICT, read_toml
from edgekit.config.types import Budgets, NotNegative, Positive, PositiveInt, Precision, Share
from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.numerics.tolerances import Tolerances, tolerances_for_precision
from edgekit.core.values.budgets import Budget

MODEL_FILE = "model.toml"
DEFAULT_VALIDATION = 0.1
SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class InputSpec:
    """The input without its batch dimension, channels last; `range` is what the values keep within.

    `normalisation` tells in words what was done to the raw values, so that a device can do the same.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32"] = "float32"
    layout: Literal["HWC", "TC"] | None = None
    range: tuple[float, float] | None = None
    normalisation: str = ""

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
    """Hyperparameters, the same for both frameworks.

    `schedule` is how the learning rate goes: `constant`; `cosine` down to `final_learning_rate` (0 where none is set);
    `step`, times `step_factor` every `step_epochs` (a third of the epochs). A file that sets `final_learning_rate` and
    no schedule means `cosine`. Over the first `warmup_epochs` the rate rises from 0. `weight_decay` is decoupled
    (AdamW) and spares biases and normalisations. `validation` is the share of the training set that is not trained on
    but judges each epoch; `early_stopping` is how many epochs may pass without a lower loss on it. `qat_epochs` and
    `qat_learning_rate` are for `--qat`.
    """

    epochs: Annotated[int, Field(ge=0)]
    batch_size: PositiveInt
    learning_rate: Positive
    loss: Literal["cross-entropy", "mse"]
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine", "step"] | None = None
    final_learning_rate: Positive | None = None
    step_epochs: PositiveInt | None = None
    step_factor: Share = 0.1
    warmup_epochs: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    validation: Share | None = None
    early_stopping: PositiveInt | None = None
    qat_epochs: PositiveInt = 1
    qat_learning_rate: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.final_learning_rate is not None and self.schedule not in (None, "cosine"):
            raise ValueError(f"final_learning_rate belongs to the schedule cosine, not to {self.schedule}")
        if self.step_epochs is not None and self.schedule != "step":
            raise ValueError(f"step_epochs belongs to the schedule step, not to {self.schedule or 'this one'}")

    @property
    def schedule_name(self) -> str:
        """The schedule, also where the file leaves it open."""
        return self.schedule or ("constant" if self.final_learning_rate is None else "cosine")

    @property
    def validation_share(self) -> float:
        """How much of the training set is kept out of it: a tenth where early stopping needs some and none is set."""
        return self.validation or (DEFAULT_VALIDATION if self.early_stopping else 0.0)

    def changed(self, overrides: Mapping[str, Any]) -> TrainingSpec:
        """With these values. Another schedule than the file's leaves the figures of the file's behind."""
        own: dict[str, Any] = {}
        if overrides.get("schedule") not in (None, "cosine"):
            own["final_learning_rate"] = None
        if overrides.get("schedule") not in (None, "step"):
            own["step_epochs"] = None
        return replace(self, **own, **overrides)


@dataclass(frozen=True)
class CardSpec:
    """What only a person can say of a model, for its card."""

    intended_use: str = ""
    limitations: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ModelSpec:
    """The whole file. `tolerances` are by precision, and override the defaults figure by figure.

    The task `anomaly` is to reconstruct the input: that is its target in training, and test labels are 0 (normal) or 1.
    """

    title: str
    task: Literal["classification", "regression", "anomaly"]
    metric: Literal["accuracy", "mae", "auc"]
    input: InputSpec
    output: OutputSpec
    data: DataSpec
    training: TrainingSpec
    tolerances: dict[Precision, Tolerances] = field(default_factory=dict)
    budgets: tuple[Budgets, ...] = ()
    card: CardSpec = CardSpec()

    __pydantic_config__ = STRICT

    def own_tolerances(self, precision: str) -> Tolerances | None:
        """The figures that the file sets for a precision."""
        return {str(key): value for key, value in self.tolerances.items()}.get(precision)

    def tolerances_for(self, precision: str, rounding: Rounding | None = None) -> Tolerances:
        """The defaults of the precision and the source's rounding, with this model's figures in their place."""
        return tolerances_for_precision(precision, self.own_tolerances(precision), rounding)

    def budget_list(self, origin: str) -> tuple[Budget, ...]:
        """Every budget of the file."""
        return tuple(budget for table in self.budgets for budget in table.table().budgets(origin))


def load_model_spec(folder: Path) -> ModelSpec:
    """The folder's model.toml. Raises InputError with file and key."""
    return read_toml(folder / MODEL_FILE, ModelSpec, "model description")
