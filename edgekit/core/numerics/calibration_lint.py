"""Checks of calibration samples for mistakes that quantizers accept silently but that cost accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.numerics.channel_errors import unlike_channels
from edgekit.core.numerics.metrics import Array

# With fewer samples, minimum and maximum of the activations depend on which samples were drawn. A rule of thumb, well
# below the 100 to 500 samples that TensorFlow's guide to post-training quantization recommends.
MIN_SAMPLES = 32
# Range of the calibration data relative to that of the model's own data. A range 1.5 times as wide costs log2(1.5) =
# 0.6 bits of resolution; half the range clips values that occur in use.
_MAX_RELATIVE_WIDTH, _MIN_RELATIVE_WIDTH = 1.5, 0.5
# Pixels of 0..255 where the model expects 0..1 or -1..1 are 255 or 127 times as wide; 16 is far below both, and far
# above the variation between samples of the same kind.
_UNSCALED_RELATIVE_WIDTH = 16
# A few duplicates are normal in real data; above this share the samples were probably repeated to get more of them.
_MAX_DUPLICATE_SHARE = 0.1
# The number of channels that a finding lists.
_SHOWN_CHANNELS = 8
# Probability of a warning on two parts of the same data. Most runs look at one input; a warning has to mean something.
_FALSE_ALARM = 1e-4


@dataclass(frozen=True)
class CalibrationFinding:
    """One problem of the calibration samples.

    Attributes:
        name: Name of the check, for example `few-samples`.
        sentence: What is wrong, with the figures.
    """

    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


def lint(
    inputs: Mapping[str, Array],
    reference: Mapping[str, Array],
    labels: Array | None = None,
    known_labels: Array | None = None,
) -> tuple[CalibrationFinding, ...]:
    """Check calibration samples against the model's own data.

    Args:
        inputs: Calibration samples by input name, shape (N, ...).
        reference: Samples of the model's own data by input name, shape (M, ...).
        labels: Labels of the calibration samples, shape (N,), where known.
        known_labels: Labels of the model's own data, shape (M,), where known.

    Returns:
        The findings: `few-samples`, `layout`, `constant`, `duplicates`, `not-normalised`, `range`, `distribution` for
        each input, and `labels` where both sets of labels are given.
    """
    findings: list[CalibrationFinding] = []
    for name, array in inputs.items():
        findings += _input_findings(name, array, reference[name])
    if labels is not None and known_labels is not None:
        findings += _label_findings(labels, known_labels)
    return tuple(findings)


def lint_outputs(
    outputs: Mapping[str, Array], layouts: Mapping[str, str] | None = None
) -> tuple[CalibrationFinding, ...]:
    """Check the source's outputs for quantities that one scale cannot keep side by side.

    Args:
        outputs: Outputs of the source on real samples by name, shape (N, ...).
        layouts: `NCHW`, `NHWC` … by output name, for images.

    Returns:
        A finding `unlike-channels` for each output in which an ideal int8 tensor loses a channel.
    """
    findings = []
    for name, array in outputs.items():
        lost = unlike_channels(array, (layouts or {}).get(name))
        if lost:
            listed = ", ".join(map(str, lost[:_SHOWN_CHANNELS])) + (" …" if len(lost) > _SHOWN_CHANNELS else "")
            sentence = (
                f"{name} has values from {array.min():.4g} to {array.max():.4g}, of which int8 keeps steps of"
                f" {(max(array.max(), 0) - min(array.min(), 0)) / 255:.2g}: the channels {listed} are lost in them;"
                " return them as an output of their own, divide the large channels by their scale, or keep the layer"
                " that joins them in float (edgekit tune)"
            )
            findings.append(CalibrationFinding("unlike-channels", sentence))
    return tuple(findings)


def _input_findings(name: str, array: Array, reference: Array) -> list[CalibrationFinding]:
    if array.shape[1:] != reference.shape[1:]:
        # All other checks would compare unlike values, so this finding stands alone.
        permuted = sorted(array.shape[1:]) == sorted(reference.shape[1:])
        difference = "the same dimensions in another order" if permuted else "another shape"
        return [
            CalibrationFinding(
                "layout", f"{name} has {difference}: {array.shape[1:]}, but the model expects {reference.shape[1:]}"
            )
        ]
    findings = []
    if len(array) < MIN_SAMPLES:
        sentence = f"{name} has {len(array)} samples; ranges from fewer than {MIN_SAMPLES} are unreliable"
        findings.append(CalibrationFinding("few-samples", sentence))
    flat = array.reshape(len(array), -1)
    # A sample of a single element is always constant, which is no finding.
    constant = int(np.sum(np.all(flat == flat[:, :1], axis=1))) if flat.shape[1] > 1 else 0
    if constant:
        sentence = f"{constant} of {len(array)} samples of {name} have the same value in all elements"
        findings.append(CalibrationFinding("constant", sentence))
    duplicates = len(array) - len(np.unique(flat, axis=0))
    if duplicates > _MAX_DUPLICATE_SHARE * len(array):
        sentence = f"{duplicates} of {len(array)} samples of {name} are duplicates of others"
        findings.append(CalibrationFinding("duplicates", sentence))
    findings += _range_findings(name, array, reference)
    # What was found above also changes the distribution.
    return findings or _distribution_findings(name, array, reference)


def _range_findings(name: str, array: Array, reference: Array) -> list[CalibrationFinding]:
    low, high = float(array.min()), float(array.max())
    reference_low, reference_high = float(reference.min()), float(reference.max())
    width = reference_high - reference_low
    ranges = (
        f"{name} has the range {low:.4g}..{high:.4g}, but the model's own data has"
        f" {reference_low:.4g}..{reference_high:.4g}"
    )
    if width <= 0:
        return []  # constant reference data gives no scale to compare with
    if high - low > _UNSCALED_RELATIVE_WIDTH * width:
        return [CalibrationFinding("not-normalised", f"{ranges}; the samples are probably not normalised")]
    outside = max(reference_low - low, high - reference_high) > (_MAX_RELATIVE_WIDTH - 1) * width
    if outside or high - low < _MIN_RELATIVE_WIDTH * width:
        return [CalibrationFinding("range", ranges)]
    return []


def _distribution_findings(name: str, array: Array, reference: Array) -> list[CalibrationFinding]:
    """Compare means and standard deviations of the samples by the two-sample test of Kolmogorov and Smirnov."""
    flat, flat_reference = (part.reshape(len(part), -1).astype(np.float64) for part in (array, reference))
    if not (np.isfinite(flat).all() and np.isfinite(flat_reference).all()):
        return []
    statistics = (
        ("mean", flat.mean(axis=1), flat_reference.mean(axis=1)),
        ("standard deviation", flat.std(axis=1), flat_reference.std(axis=1)),
    )
    distances = [_ks_distance(ours, theirs) for _, ours, theirs in statistics]
    # The asymptotic critical value: sqrt(-ln(p / 2) / 2) sqrt((n + m) / (n m)).
    limit = np.sqrt(-np.log(_FALSE_ALARM / 2) / 2 * (1 / len(flat) + 1 / len(flat_reference)))
    distance = max(distances)
    if distance <= limit:
        return []
    what, ours, theirs = statistics[distances.index(distance)]
    sentence = (
        f"the {what} of a sample of {name} is distributed otherwise than in the golden samples: its median is"
        f" {np.median(ours):.4g} against {np.median(theirs):.4g}, the distance {distance:.2f} (chance alone exceeds"
        f" {limit:.2f} once in {round(1 / _FALSE_ALARM):,} times)"
    )
    return [CalibrationFinding("distribution", sentence)]


def _ks_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the largest difference of the two empirical distribution functions."""
    points = np.concatenate([first, second])
    shares = (np.searchsorted(np.sort(part), points, side="right") / len(part) for part in (first, second))
    return float(np.max(np.abs(np.subtract(*shares))))


def _label_findings(labels: Array, known_labels: Array) -> list[CalibrationFinding]:
    # Labels that are not integers are targets of a regression; they have no classes to cover.
    if not np.issubdtype(known_labels.dtype, np.integer):
        return []
    missing = sorted({int(label) for label in np.unique(known_labels)} - {int(label) for label in np.unique(labels)})
    if not missing:
        return []
    listed = ", ".join(map(str, missing))
    return [CalibrationFinding("labels", f"{len(missing)} classes have no calibration sample: {listed}")]
