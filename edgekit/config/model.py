"""The schema of `model.toml`: a reference model's input, output, data and training, and the limits of its artifacts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgekit.config.loader import STRICT, read_toml
from edgekit.config.types import Budgets, NotNegative, Positive, PositiveInt, PrecisionName, Share
from edgekit.core.numerics.applicable_tolerances import tolerances_for_precision
from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.values.budgets import Budget
from edgekit.core.values.tolerances import Tolerances

# In the folder of each reference model.
MODEL_FILE = "model.toml"

# Early stopping needs a validation set; a tenth is the usual share where the file names none.
DEFAULT_VALIDATION = 0.1

# The values of `schedule`, for the options of the command line.
SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class InputSpec:
    """The model's input.

    Attributes:
        name: The tensor's name.
        shape: The shape without the batch dimension, channels last, such as `(H, W, C)`.
        dtype: The data type.
        layout: The order of the dimensions: `HWC` for images, `TC` for sequences.
        range: The lowest and the highest value that the input can have.
        normalisation: How the raw values were normalised, in words, so that a device can do the same.
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
    """The model's output.

    Attributes:
        name: The tensor's name.
        shape: The shape without the batch dimension.
        classes: The names of the classes, in the order of the output's elements (classifiers).
    """

    name: str
    shape: tuple[PositiveInt, ...]
    classes: tuple[str, ...] = ()

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DataSpec:
    """The model's default data set.

    Attributes:
        default: The data set that is used when the user names no other.
        licence: The data set's licence.
        description: What the data set holds.
        golden: The number of golden samples.
        calibration: The number of calibration samples.
        test: The number of test samples.
    """

    default: str
    licence: str
    description: str = ""
    golden: PositiveInt = 64
    calibration: PositiveInt = 256
    test: PositiveInt = 1000

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class TrainingSpec:
    """The hyperparameters, which are the same for both frameworks.

    Attributes:
        epochs: The number of epochs.
        batch_size: The number of samples in a batch.
        learning_rate: The learning rate after the warm-up.
        loss: The loss function.
        optimizer: The optimizer.
        schedule: The course of the rate: `constant`; `cosine`, down to `final_learning_rate`; `step`, multiplied
            by `step_factor` every `step_epochs`. None means `cosine` if `final_learning_rate` is set, else `constant`.
        final_learning_rate: The learning rate at the end of `cosine`; None for 0.
        step_epochs: The epochs between two steps of `step`; None for a third of all epochs.
        step_factor: The factor of each step.
        warmup_epochs: The epochs over which the learning rate rises from 0.
        weight_decay: The decoupled weight decay (AdamW), which does not apply to biases and normalisations.
        validation: The share of the training set that is held out to judge each epoch.
        early_stopping: The number of epochs without a lower validation loss after which training ends.
        qat_epochs: The epochs of quantization-aware fine-tuning (`--qat`).
        qat_learning_rate: The learning rate of `--qat`.
        qat_per_tensor: Whether `--qat` rounds each weight with one scale, instead of one for each output channel.
        seed: The seed of the initial weights, of the order of samples and of dropout; the split of the data does not
            depend on it.
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
    qat_per_tensor: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.final_learning_rate is not None and self.schedule not in (None, "cosine"):
            raise ValueError(f"final_learning_rate belongs to the schedule cosine, not to {self.schedule}")
        if self.step_epochs is not None and self.schedule != "step":
            raise ValueError(f"step_epochs belongs to the schedule step, not to {self.schedule or 'this one'}")

    @property
    def schedule_name(self) -> str:
        """The schedule in effect, also when the file does not set it."""
        return self.schedule or ("constant" if self.final_learning_rate is None else "cosine")

    @property
    def validation_share(self) -> float:
        """The share of the training set that is held out: a tenth if early stopping needs it and the file sets none."""
        return self.validation or (DEFAULT_VALIDATION if self.early_stopping else 0.0)

    def changed(self, overrides: Mapping[str, Any]) -> TrainingSpec:
        """Return a copy with other values.

        Args:
            overrides: Field name -> value. Another schedule resets the fields that belong to the file's schedule.

        Returns:
            The changed copy.
        """
        reset: dict[str, Any] = {}
        if overrides.get("schedule") not in (None, "cosine"):
            reset["final_learning_rate"] = None
        if overrides.get("schedule") not in (None, "step"):
            reset["step_epochs"] = None
        return replace(self, **reset, **overrides)


@dataclass(frozen=True)
class CardSpec:
    """The parts of a model card that its author writes.

    Attributes:
        intended_use: What the model is for.
        limitations: What the model is not suited for, one sentence each.
        references: Publications and links.
    """

    intended_use: str = ""
    limitations: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ModelSpec:
    """The content of `model.toml`.

    Attributes:
        title: What the model does, in a few words.
        task: `classification`, `regression`, or `anomaly`: an autoencoder, trained to reconstruct its input, with test
            labels 0 (normal) or 1 (anomalous).
        metric: The task metric: accuracy, mean absolute error, or area under the ROC curve.
        input: The input.
        output: The output.
        data: The default data set.
        training: The hyperparameters.
        tolerances: Precision -> tolerances. Each value overrides the default of its precision.
        budgets: Limits of the artifacts.
        card: What the author says on the model card.
    """

    title: str
    task: Literal["classification", "regression", "anomaly"]
    metric: Literal["accuracy", "mae", "auc"]
    input: InputSpec
    output: OutputSpec
    data: DataSpec
    training: TrainingSpec
    tolerances: dict[PrecisionName, Tolerances] = field(default_factory=dict)
    budgets: tuple[Budgets, ...] = ()
    card: CardSpec = CardSpec()

    __pydantic_config__ = STRICT

    def own_tolerances(self, precision: str) -> Tolerances | None:
        """Return the tolerances that the file sets for a precision, or None."""
        return self.tolerances.get(precision)

    def tolerances_for(self, precision: str, rounding: Rounding | None = None) -> Tolerances:
        """Return the tolerances that apply to an artifact.

        Args:
            precision: The artifact's precision.
            rounding: The float32 rounding error of the source, which the defaults allow for; None if it is unknown.

        Returns:
            The defaults, overridden by the values of the file.
        """
        return tolerances_for_precision(precision, self.own_tolerances(precision), rounding)

    def budget_list(self, origin: str) -> tuple[Budget, ...]:
        """Return all budgets of the file.

        Args:
            origin: The name of the file, for messages about a budget.

        Returns:
            One budget for each limit of each `[[budgets]]` table.
        """
        return tuple(budget for table in self.budgets for budget in table.table().budgets(origin))


def load_model_spec(folder: Path) -> ModelSpec:
    """Read the `model.toml` of a model's folder.

    Args:
        folder: The model's folder.

    Returns:
        The validated content.

    Raises:
        InputError: The file is missing, or a key or value is wrong; names the file and the key.
    """
    return read_toml(folder / MODEL_FILE, ModelSpec, "model description")
