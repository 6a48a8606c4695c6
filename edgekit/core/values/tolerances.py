"""Limits on the distance between the outputs of an artifact and of its source.

The default limits of each precision are in `edgekit.core.values.precisions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True)
class Tolerances:
    """Limits on the distance between an artifact's outputs and its source's; None sets no limit.

    Attributes:
        max_abs_error: Largest absolute error, in the unit of the output.
        mean_abs_error: Largest mean absolute error, in the unit of the output.
        rmse: Largest root mean square error, in the unit of the output.
        min_sqnr_db: Smallest signal to quantization noise ratio, in dB.
        min_cosine: Smallest cosine similarity, in [-1, 1].
        min_top1_agreement: Smallest share of samples with the same top class, in [0, 1]; for classifiers only.
        min_agreement: Smallest share of equal elements of an integer or boolean output (class ids, masks), in [0, 1].
    """

    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    rmse: float | None = None
    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_top1_agreement: float | None = None
    min_agreement: float | None = None

    __pydantic_config__ = {
        "extra": "forbid",
        "strict": True,
    }  # read by edgekit.config; a plain dict, since core does not import pydantic

    def __post_init__(self) -> None:
        for name, value in self.limits().items():
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number (got {value})")
        for name in ("max_abs_error", "mean_abs_error", "rmse"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative (got {value})")
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine must lie between -1 and 1 (got {self.min_cosine})")
        for name in ("min_top1_agreement", "min_agreement"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1 (got {value})")

    def merged(self, override: Tolerances | None) -> Tolerances:
        """Return a copy in which the limits of another set replace those of this one.

        Args:
            override: Limits that take precedence where they are set, or None.

        Returns:
            The merged limits.
        """
        if override is None:
            return self
        return replace(self, **{key: value for key, value in asdict(override).items() if value is not None})

    def limits(self) -> Mapping[str, float]:
        """Return the limits that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
