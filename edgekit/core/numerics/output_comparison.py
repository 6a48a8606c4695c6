"""Comparison of an artifact's outputs with those of its source; a failed comparison is a value, not an exception."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgekit.core.numerics import metrics
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.tolerances import Tolerances
from edgekit.core.values.typed_json import Count, Name

# Distances have an upper limit under their own name; similarities a lower one, whose name starts with `min_`.
_UPPER = ("max_abs_error", "mean_abs_error", "rmse")
_LOWER = {"min_sqnr_db": "sqnr_db", "min_cosine": "cosine", "min_top1_agreement": "top1_agreement"}
# Stands for an SQNR of minus infinity (noise on a reference of zeros), which JSON cannot hold; below any tolerance.
_NO_SIGNAL_DB = -999.0
# The ranges of the figures; rounding may exceed those of a cosine by its last digits.
_RANGES = {
    **dict.fromkeys(_UPPER, (0.0, math.inf)),
    "sqnr_db": (_NO_SIGNAL_DB, math.inf),
    "cosine": (-1.000001, 1.000001),
    "top1_agreement": (0.0, 1.0),
}
FigureName = Literal["max_abs_error", "mean_abs_error", "rmse", "sqnr_db", "cosine", "top1_agreement"]


@dataclass(frozen=True)
class Figure:
    """One metric of a comparison with its tolerance.

    Attributes:
        name: Name of the metric, for example `rmse`.
        value: The value; None stands for infinity (the SQNR of equal outputs).
        limit: The tolerance; None where there is none.
        passed: Whether the value is within the tolerance. It is always computed: what a file says about it is ignored.

    Raises:
        ValueError: The value is not in the range of its metric.
    """

    name: FigureName
    value: float | None
    limit: float | None
    passed: bool = field(init=False)

    def __post_init__(self) -> None:
        low, high = _RANGES[self.name]
        if self.value is None:
            if self.name != "sqnr_db":
                raise ValueError(f"{self.name} must be a number (got null)")
        elif math.isfinite(self.value) and not low <= self.value <= high:  # a file holds finite values only
            raise ValueError(f"{self.name} must be from {low:g} to {high:g} (got {self.value:g})")
        object.__setattr__(self, "passed", self._within())

    def _within(self) -> bool:
        if self.limit is None:
            return True
        if self.name in _UPPER:
            return self.value is not None and self.value <= self.limit
        return self.value is None or (self.value > _NO_SIGNAL_DB and self.value >= self.limit)

    @property
    def limit_text(self) -> str:
        """The tolerance with its relation, for example `>= 20`; empty where there is none."""
        if self.limit is None:
            return ""
        if self.name in _LOWER.values():
            return f">= {self.limit:.10g}"  # enough digits for a cosine such as 0.9999999
        return f"<= {self.limit:.3g}"


@dataclass(frozen=True)
class Comparison:
    """The comparison of one output tensor of an artifact with the source's.

    Attributes:
        output: Name of the output.
        samples: Number of samples.
        worst_sample: Index of the sample with the largest absolute error; None where nothing could be measured.
        figures: The metrics with their tolerances; empty where there is a problem.
        problem: Why nothing could be measured (shape, dtype, NaN), in one sentence; else None.
        evidence: False where the source's outputs are the same for all samples, so that equality proves nothing.
    """

    output: Name
    samples: Count
    worst_sample: Count | None
    figures: tuple[Figure, ...]
    problem: str | None = None
    evidence: bool = True

    def __post_init__(self) -> None:
        if self.worst_sample is not None and self.worst_sample >= self.samples > 0:
            raise ValueError(f"worst_sample must be less than {self.samples} (got {self.worst_sample})")

    @property
    def passed(self) -> bool:
        """Whether all figures were measured and are within their tolerances, and there is no problem."""
        return not self.failures

    def value(self, name: str) -> float | None:
        """Return the value of one metric.

        Args:
            name: Name of the metric.

        Returns:
            The value; None where it was not measured or is infinite.
        """
        return next((figure.value for figure in self.figures if figure.name == name), None)

    @property
    def failures(self) -> tuple[str, ...]:
        """One clause for each figure that is out of tolerance, or for the problem."""
        if self.problem is not None:
            return (f"output {self.output}: {self.problem}",)
        if not self.figures or self.samples == 0:
            return (f"output {self.output}: nothing was measured",)
        return tuple(
            f"output {self.output}: {figure.name} {format_figure(figure.value)}, tolerance {figure.limit_text}"
            for figure in self.figures
            if not figure.passed
        )


def format_figure(value: float | None) -> str:
    """Format the value of a metric.

    Args:
        value: The value; None stands for infinity, which JSON cannot hold.

    Returns:
        Three significant digits, seven decimals between 0.99 and 1, `inf` for None.
    """
    if value is None:
        return "inf"
    # Cosines and agreements differ in the digits behind 0.99.
    return f"{value:.7f}" if 0.99 < value < 1 else f"{value:.3g}"


def _scale(reference: Array) -> float:
    """Return the factor of absolute tolerances: the largest output, at least 1."""
    # Rounding is relative: an output of 100 has a hundred times the error of an output of 1. Smaller outputs do not get
    # a smaller tolerance, since probabilities and logits near 0 carry the errors of larger intermediate values.
    return max(1.0, float(np.max(np.abs(reference.astype(np.float64)))))


def _figure(name: FigureName, value: float, tolerances: Tolerances, scale: float) -> Figure:
    limits = tolerances.limits()
    if name in _UPPER:
        limit = limits.get(name)
        return Figure(name, value, None if limit is None else limit * scale)
    key = next(key for key, figure in _LOWER.items() if figure == name)
    if math.isinf(value):  # JSON has no infinity: null for equal arrays, a fixed value for noise without a signal
        return Figure(name, None if value > 0 else _NO_SIGNAL_DB, limits.get(key))
    return Figure(name, max(value, _NO_SIGNAL_DB) if name == "sqnr_db" else value, limits.get(key))


def _comparison_problem(reference: Array, actual: Array) -> str | None:
    # Converters narrow int64 outputs to int32, which changes no value.
    if actual.dtype != reference.dtype and {actual.dtype.kind, reference.dtype.kind} != {"i"}:
        return f"dtype is {actual.dtype}, but the source has {reference.dtype}"
    if actual.shape != reference.shape:
        return f"shape is {actual.shape}, but the source has {reference.shape}"
    if reference.size == 0:
        return "there are no samples to compare"
    for side, array in (("artifact", actual), ("source", reference)):
        finite = np.isfinite(array)
        if not finite.all():
            bad = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
            return f"the {side} returns NaN or infinity in {len(bad)} of {len(array)} samples, first in sample {bad[0]}"
    return None


def _saturation_problem(reference: Array) -> str | None:
    # Any broken artifact that returns the same constant would pass.
    if len(reference) > 1 and np.all(reference == reference[:1]):
        return f"the source returns the same output for all {len(reference)} samples, which is no evidence of equality"
    return None


def compare_output(
    name: str, reference: Array, actual: Array, tolerances: Tolerances, *, classifier: bool
) -> Comparison:
    """Compare one output of an artifact with the source's.

    Args:
        name: Name of the output.
        reference: Output of the source, shape (N, ...).
        actual: Output of the artifact, shape (N, ...), dequantized to the source's dtype.
        tolerances: Limits on the metrics; absolute ones are multiplied by the largest output where that exceeds 1.
        classifier: Whether to compare the top classes as well; axis -1 holds the classes.

    Returns:
        The comparison.
    """
    problem = _comparison_problem(reference, actual)
    if problem is not None:
        return Comparison(name, len(reference), None, (), problem)
    saturation = _saturation_problem(reference)
    if saturation is not None:
        return Comparison(name, len(reference), None, (), saturation, evidence=False)
    values: dict[FigureName, float] = {
        "max_abs_error": metrics.max_abs_error(reference, actual),
        "mean_abs_error": metrics.mean_abs_error(reference, actual),
        "rmse": metrics.rmse(reference, actual),
        "sqnr_db": metrics.sqnr_db(reference, actual),
        "cosine": metrics.cosine(reference, actual),
    }
    if classifier:
        values["top1_agreement"] = metrics.top1_agreement(reference, actual)
    lost = [key for key, value in values.items() if math.isnan(value) or (math.isinf(value) and key != "sqnr_db")]
    if lost:
        return Comparison(name, len(reference), None, (), f"{lost[0]} exceeds the range of float64")
    index, _ = metrics.worst_sample(reference, actual)
    scale = _scale(reference)
    figures = tuple(_figure(key, value, tolerances, scale) for key, value in values.items())
    return Comparison(name, len(reference), index, figures)


def compare_outputs(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerances: Mapping[str, Tolerances],
    *,
    classifier: bool,
) -> tuple[Comparison, ...]:
    """Compare all outputs of a source with those of the same name of an artifact.

    Args:
        reference: Outputs of the source by name, shape (N, ...).
        actual: Outputs of the artifact by name; a missing one is a problem of its comparison.
        tolerances: Limits on the metrics by output name.
        classifier: Whether to compare the top classes as well.

    Returns:
        One comparison for each output of the source, in its order.
    """
    return tuple(
        compare_output(name, array, actual[name], tolerances[name], classifier=classifier)
        if name in actual
        else Comparison(name, len(array), None, (), "the artifact has no such output")
        for name, array in reference.items()
    )
