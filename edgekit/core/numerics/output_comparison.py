"""Comparing what an artifact computes with what its source computed. A failed comparison is a value, no exception."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.numerics import metrics
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tolerances import Tolerances

_UPPER = ("max_abs_error", "mean_abs_error", "rmse")
_LOWER = {"min_sqnr_db": "sqnr_db", "min_cosine": "cosine", "min_top1_agreement": "top1_agreement"}
_NO_SIGNAL_DB = -999.0


@dataclass(frozen=True)
class Figure:
    """One figure beside its tolerance: `limit` is None where there is none."""

    name: str
    value: float | None
    limit: float | None
    passed: bool

    @property
    def limit_text(self) -> str:
        """The tolerance as it is printed beside the figure; empty where there is none."""
        if self.limit is None:
            return ""
        if self.name in _LOWER.values():
            return f">= {self.limit:.10g}"
        return f"<= {self.limit:.3g}"


@dataclass(frozen=True)
class Comparison:
    """One output tensor of an artifact against the source's.

    `problem` is a sentence when there is nothing to measure (shape, dtype, NaN); then `figures` is empty. `evidence` is
    false where the source's outputs could not show a difference: all samples alike.
    """

    output: str
    samples: int
    worst_sample: int | None
    figures: tuple[Figure, ...]
    problem: str | None = None
    evidence: bool = True

    @property
    def passed(self) -> bool:
        """True when every figure keeps within its tolerance."""
        return self.problem is None and all(figure.passed for figure in self.figures)

    def value(self, name: str) -> float | None:
        """The figure of that name, or None."""
        return next((figure.value for figure in self.figures if figure.name == name), None)

    @property
    def failures(self) -> tuple[str, ...]:
        """One clause for each figure out of tolerance."""
        if self.problem is not None:
            return (f"output {self.output}: {self.problem}",)
        return tuple(
            f"output {self.output}: {figure.name} {format_figure(figure.value)}, tolerance {figure.limit_text}"
            for figure in self.figures
            if not figure.passed
        )


def format_figure(value: float | None) -> str:
    """Three significant digits, seven just below 1; None (an infinite SQNR, JSON has no infinity) as `inf`."""
    if value is None:
        return "inf"
    return f"{value:.7f}" if 0.99 < value < 1 else f"{value:.3g}"


def _scale(reference: Array) -> float:
    """What absolute tolerances are multiplied by: the largest output, where that is above one.

    Rounding is relative: an output of 100 has a hundred times the error of an output of 1.
    """
    return max(1.0, float(np.max(np.abs(reference.astype(np.float64)))))


def _figure(name: str, value: float, tolerances: Tolerances, scale: float) -> Figure:
    limits = tolerances.limits()
    if name in _UPPER:
        limit = limits.get(name)
        limit = None if limit is None else limit * scale
        return Figure(name, value, limit, limit is None or value <= limit)
    key = next(key for key, figure in _LOWER.items() if figure == name)
    limit = limits.get(key)
    passed = limit is None or value >= limit
    if math.isinf(value):  # JSON has no infinity: equal arrays are null, noise over silence is the floor
        return Figure(name, None if value > 0 else _NO_SIGNAL_DB, limit, passed)
    return Figure(name, value, limit, passed)


def _problem(reference: Array, actual: Array) -> str | None:
    # Converters narrow int64 to int32; the values are compared all the same.
    if actual.dtype != reference.dtype and {actual.dtype.kind, reference.dtype.kind} != {"i"}:
        return f"dtype {actual.dtype} where the source has {reference.dtype}"
    if actual.shape != reference.shape:
        return f"shape {actual.shape} where the source has {reference.shape}"
    if reference.size == 0:
        return "there are no samples to compare"
    for what, array in (("artifact", actual), ("source", reference)):
        finite = np.isfinite(array)
        if not finite.all():
            bad = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
            return (
                f"the {what} computes NaN or infinity in {len(bad)} of {len(array)} samples, first in sample {bad[0]}"
            )
    return None


def _saturated(reference: Array) -> str | None:
    if len(reference) > 1 and np.all(reference == reference[:1]):
        return f"the source computes the same for all {len(reference)} samples, which is no evidence of equality"
    return None


def compare_output(
    name: str, reference: Array, actual: Array, tolerances: Tolerances, *, classifier: bool
) -> Comparison:
    """Compares one output, shape (N, ...), with the source's; both dequantized to the source's dtype."""
    problem = _problem(reference, actual)
    if problem is not None:
        return Comparison(name, len(reference), None, (), problem)
    saturated = _saturated(reference)
    if saturated is not None:
        return Comparison(name, len(reference), None, (), saturated, evidence=False)
    values = {
        "max_abs_error": metrics.max_abs_error(reference, actual),
        "mean_abs_error": metrics.mean_abs_error(reference, actual),
        "rmse": metrics.rmse(reference, actual),
        "sqnr_db": metrics.sqnr_db(reference, actual),
        "cosine": metrics.cosine(reference, actual),
    }
    if classifier:
        values["top1_agreement"] = metrics.top1_agreement(reference, actual)
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
    """Compares every output of the source by name, within its tolerances. One that the artifact lacks is a problem."""
    return tuple(
        compare_output(name, array, actual[name], tolerances[name], classifier=classifier)
        if name in actual
        else Comparison(name, len(array), None, (), "the artifact has no such output")
        for name, array in reference.items()
    )


def comparison_from_dict(data: Mapping[str, Any]) -> Comparison:
    """The inverse of `dataclasses.asdict` after a trip through JSON."""
    figures = tuple(Figure(**figure) for figure in data["figures"])
    return Comparison(
        data["output"], data["samples"], data["worst_sample"], figures, data["problem"], data.get("evidence", True)
    )
