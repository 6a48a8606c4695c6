"""Comparison of an artifact's outputs with those of its source; a failed comparison is a value, not an exception.

What a verdict rests on:

- Floating-point outputs are judged over the whole tensor by the limits of `Tolerances`, and channel by channel
  (`channel_errors`), because the error of a tensor is that of its largest quantity.
- Integer and boolean outputs are ids, masks or indices: they are judged by the share of equal elements, and a class
  that the artifact no longer has is lost. Distances between ids mean nothing: class 3 is no nearer to class 4 than to
  class 9. An integer of 8 or 16 bits with more than 64 values is a quantity, such as a pixel, and is judged like a
  float.
- Infinities that both have in the same place are equal; they are left out of the figures. NaN is never equal.
- An output that is the same for all samples is judged like any other, but is no evidence: an artifact that ignores its
  input returns it too. Some other output must vary.
- The cosine sees the relative error, which is meaningless below the noise of the arithmetic. Where the absolute
  tolerance is T, an error of T / 8 rms is rounding (its largest value is about T), and costs (T / 8)^2 / (2 mean r^2)
  of a cosine. A cosine limit that only float32 has (above 1 - 1e-6) is lowered to that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgekit.core.numerics import metrics
from edgekit.core.numerics.channel_errors import CHANNEL_MARGIN_DB, LostChannel, lost_channels
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.tolerances import Tolerances
from edgekit.core.values.typed_json import Count, Name, Share

FigureName = Literal[
    "max_abs_error", "mean_abs_error", "rmse", "sqnr_db", "cosine", "top1_agreement", "agreement", "mean_iou"
]
# Distances have an upper limit under their own name; similarities a lower one, whose name starts with `min_`.
_UPPER = ("max_abs_error", "mean_abs_error", "rmse")
_LOWER: dict[str, FigureName] = {
    "min_sqnr_db": "sqnr_db",
    "min_cosine": "cosine",
    "min_top1_agreement": "top1_agreement",
    "min_agreement": "agreement",
}
# Stands for an SQNR of minus infinity (noise on a reference of zeros), which JSON cannot hold; below any tolerance.
_NO_SIGNAL_DB = -999.0
# The ranges of the figures; rounding may exceed those of a cosine by its last digits.
_RANGES = {
    **dict.fromkeys(_UPPER, (0.0, math.inf)),
    "sqnr_db": (_NO_SIGNAL_DB, math.inf),
    "cosine": (-1.000001, 1.000001),
    **dict.fromkeys(("top1_agreement", "agreement", "mean_iou"), (0.0, 1.0)),
}
# A cosine limit above this is one of float32, and is lowered to the noise of the arithmetic; T / 8, see above.
_FINE_COSINE, _RMS_OF_TOLERANCE = 1 - 1e-6, 1 / 8
# An integer output of 8 or 16 bits with more values than this is a quantity and no class.
_MOST_CLASSES = 64
# A class is lost where its IoU is below this, if it has this share of the elements and this many of them: the IoU of a
# rare class is that of its outlines.
_LOST_IOU, _CLASS_SHARE, _CLASS_ELEMENTS = 0.1, 0.01, 16
# A sample with more than this share of the noise power decides the figures; fewer samples than these always have one.
_DOMINANT_SHARE, _DOMINANT_SAMPLES = 0.5, 8


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
class DominantSample:
    """The one sample that makes most of the error, such as one whose values are clipped.

    Attributes:
        sample: Its index.
        share: Its share of the noise power, from 0.5 to 1.
        sqnr_db: The SQNR of all other samples, in dB; None where they are equal.
    """

    sample: Count
    share: Share
    sqnr_db: float | None

    def __str__(self) -> str:
        others = "exact" if self.sqnr_db is None else f"at {self.sqnr_db:.1f} dB"
        return f"sample {self.sample} alone makes {100 * self.share:.0f} % of the error; the others are {others}"


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
        lost: The channels or classes whose values the artifact does not keep; see `channel_errors`.
        dominant: The sample that makes most of the error, where there is one.
    """

    output: Name
    samples: Count
    worst_sample: Count | None
    figures: tuple[Figure, ...]
    problem: str | None = None
    evidence: bool = True
    lost: tuple[LostChannel, ...] = ()
    dominant: DominantSample | None = None

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
        clauses = [
            f"output {self.output}: {figure.name} {format_figure(figure.value)}, tolerance {figure.limit_text}"
            for figure in self.figures
            if not figure.passed
        ]
        if clauses and self.dominant is not None:
            clauses[-1] += f" ({self.dominant})"
        clauses += [f"output {self.output}: {channel}" for channel in self.lost[:_SHOWN_LOST]]
        if len(self.lost) > _SHOWN_LOST:
            clauses.append(f"output {self.output}: {len(self.lost) - _SHOWN_LOST} more channels are lost")
        return tuple(clauses)

    @property
    def sqnr_db(self) -> float:
        """The SQNR in dB that a search maximizes: of the tensor, or of the worst lost channel if that is far lower.

        Far is by the margin of a channel. The lowest of many channels that are about as noisy as the tensor is chance.

        Of ids it is -10 log10 of the share of wrong ones.

        Infinity for equal outputs; minus infinity where nothing could be measured.
        """
        if self.problem is not None or not self.figures:
            return -math.inf
        agreement = self.value("agreement")
        if agreement is not None:
            return math.inf if agreement == 1 else -10 * math.log10(1 - agreement)
        value = self.value("sqnr_db")
        tensor = math.inf if value is None else value
        channels = [channel.sqnr_db for channel in self.lost if channel.sqnr_db is not None]
        return min([tensor, *(sqnr for sqnr in channels if sqnr < tensor - CHANNEL_MARGIN_DB)])


# A tensor of a thousand scores may have lost them all; the first ones say what is wrong.
_SHOWN_LOST = 4


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


def _figure(name: FigureName, value: float, limits: Mapping[str, float], scale: float) -> Figure:
    if name in _UPPER:
        limit = limits.get(name)
        return Figure(name, value, None if limit is None else limit * scale)
    key = next((key for key, figure in _LOWER.items() if figure == name), "")
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
    same_infinity = np.isinf(reference) & (reference == actual)
    for side, array in (("artifact", actual), ("source", reference)):
        finite = np.isfinite(array) | same_infinity
        if not finite.all():
            bad = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
            return f"the {side} returns NaN or infinity in {len(bad)} of {len(array)} samples, first in sample {bad[0]}"
    return None


def _without_infinities(reference: Array, actual: Array) -> tuple[Array, Array]:
    """Return both arrays with zeros for infinities, which both have in the same places."""
    if reference.dtype.kind != "f" or np.isfinite(reference).all():
        return reference, actual
    infinite = np.isinf(reference)
    zero = reference.dtype.type(0)
    return np.where(infinite, zero, reference), np.where(infinite, zero, actual)


def _is_discrete(reference: Array) -> bool:
    """Return whether an output holds classes, a mask or indices, and no quantities."""
    if reference.dtype.kind == "b":
        return True
    narrow = reference.dtype.kind in "iu" and reference.dtype.itemsize <= 2
    return reference.dtype.kind in "iu" and not (narrow and len(np.unique(reference)) > _MOST_CLASSES)


def compare_output(
    name: str,
    reference: Array,
    actual: Array,
    tolerances: Tolerances,
    *,
    classifier: bool,
    layout: str | None = None,
) -> Comparison:
    """Compare one output of an artifact with the source's.

    Args:
        name: Name of the output.
        reference: Output of the source, shape (N, ...).
        actual: Output of the artifact, shape (N, ...), dequantized to the source's dtype.
        tolerances: Limits on the metrics; absolute ones are multiplied by the largest output where that exceeds 1.
        classifier: Whether to compare the top classes as well; axis -1 holds the classes.
        layout: `NCHW`, `NHWC` … for images, which tells where their channels are; else None.

    Returns:
        The comparison.
    """
    problem = _comparison_problem(reference, actual)
    if problem is not None:
        return Comparison(name, len(reference), None, (), problem)
    reference, actual = _without_infinities(reference, actual)
    # Any broken artifact that returns the same constant would be equal.
    evidence = len(reference) <= 1 or not np.all(reference == reference[:1])
    index, _ = metrics.worst_sample(reference, actual)
    if _is_discrete(reference):
        figures, lost = _discrete_figures(reference, actual, tolerances)
        return Comparison(name, len(reference), index, figures, evidence=evidence, lost=lost)
    values: dict[FigureName, float] = {
        "max_abs_error": metrics.max_abs_error(reference, actual),
        "mean_abs_error": metrics.mean_abs_error(reference, actual),
        "rmse": metrics.rmse(reference, actual),
        "sqnr_db": metrics.sqnr_db(reference, actual),
        "cosine": metrics.cosine(reference, actual),
    }
    if classifier:
        values["top1_agreement"] = metrics.top1_agreement(reference, actual)
    beyond = [key for key, value in values.items() if math.isnan(value) or (math.isinf(value) and key != "sqnr_db")]
    if beyond:
        return Comparison(name, len(reference), None, (), f"{beyond[0]} exceeds the range of float64")
    scale = _scale(reference)
    limits = _with_noise_floor(tolerances, reference, scale)
    return Comparison(
        name,
        len(reference),
        index,
        tuple(_figure(key, value, limits, scale) for key, value in values.items()),
        evidence=evidence,
        lost=lost_channels(reference, actual, tolerances, layout),
        dominant=_dominant_sample(reference, actual),
    )


def _with_noise_floor(tolerances: Tolerances, reference: Array, scale: float) -> dict[str, float]:
    """Return the limits; a cosine limit of float32 is lowered to what rounding within the tolerance costs."""
    limits = dict(tolerances.limits())
    power = float(np.mean(reference.astype(np.float64) ** 2))
    if power > 0 and "max_abs_error" in limits and limits.get("min_cosine", 0.0) > _FINE_COSINE:
        rounding = _RMS_OF_TOLERANCE * limits["max_abs_error"] * scale
        limits["min_cosine"] = max(-1.0, min(limits["min_cosine"], 1 - rounding**2 / (2 * power)))
    return limits


def _discrete_figures(
    reference: Array, actual: Array, tolerances: Tolerances
) -> tuple[tuple[Figure, ...], tuple[LostChannel, ...]]:
    """Return the figures of an output of classes, and the classes that the artifact no longer has."""
    ious = metrics.class_ious(reference, actual)
    values: dict[FigureName, float] = {
        "max_abs_error": metrics.max_abs_error(reference, actual),
        "agreement": metrics.agreement(reference, actual),
        "mean_iou": float(np.mean(list(ious.values()))),
    }
    limit = tolerances.min_agreement
    limits = {} if limit is None else {"min_agreement": limit}
    lost = []
    for class_id, iou in ious.items() if limit is not None else ():
        elements = int(np.sum(reference == class_id))
        if iou < _LOST_IOU and elements >= max(_CLASS_ELEMENTS, _CLASS_SHARE * reference.size):
            share = 100 * elements / reference.size
            reason = f"the source has it in {share:.1f} % of the elements, the IoU is {iou:.2f}"
            lost.append(LostChannel("class", class_id, reason))
    return tuple(_figure(key, value, limits, 1.0) for key, value in values.items()), tuple(lost)


def _dominant_sample(reference: Array, actual: Array) -> DominantSample | None:
    """Return the sample that makes more than half of the noise power, if there is one among enough samples."""
    if len(reference) < _DOMINANT_SAMPLES:
        return None
    powers = ((actual.astype(np.float64) - reference.astype(np.float64)) ** 2).reshape(len(reference), -1).sum(axis=1)
    total, index = float(powers.sum()), int(np.argmax(powers))
    if not math.isfinite(total) or powers[index] <= _DOMINANT_SHARE * total:
        return None
    others = np.arange(len(reference)) != index
    without = metrics.sqnr_db(reference[others], actual[others])
    rest = None if without == math.inf else max(without, _NO_SIGNAL_DB)
    return DominantSample(index, min(1.0, float(powers[index]) / total), rest)


def compare_outputs(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerances: Mapping[str, Tolerances],
    *,
    classifier: bool,
    layouts: Mapping[str, str] | None = None,
) -> tuple[Comparison, ...]:
    """Compare all outputs of a source with those of the same name of an artifact.

    Args:
        reference: Outputs of the source by name, shape (N, ...).
        actual: Outputs of the artifact by name; a missing one is a problem of its comparison.
        tolerances: Limits on the metrics by output name.
        classifier: Whether to compare the top classes as well.
        layouts: `NCHW`, `NHWC` … by output name, for images.

    Returns:
        One comparison for each output of the source, in its order.
    """
    return tuple(
        compare_output(
            name, array, actual[name], tolerances[name], classifier=classifier, layout=(layouts or {}).get(name)
        )
        if name in actual
        else Comparison(name, len(array), None, (), "the artifact has no such output")
        for name, array in reference.items()
    )
