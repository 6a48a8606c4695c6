"""The cost model of microcontrollers: predicts the latency of an int8 network from its graph.

    cycles = cycles_per_mac * multiply-accumulates + cycles_per_output * outputs

Without a significant cache, latency follows the kernels' instructions: some for each multiply-accumulate, and some for
each output element, which is scaled back to int8 and clamped. `outputs` counts the elements that operators with
weights write; depthwise and pointwise convolutions write many in relation to their multiply-accumulates. Four published
networks do not determine more than two coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.config.device_profile import DeviceProfile, KernelSpec

# The precision of the published networks; kernels of other precisions have other costs.
PRECISION = "int8"
# Fewer timings than these leave no error to estimate: two coefficients fit two timings exactly.
_MIN_TIMINGS = 3


@dataclass(frozen=True)
class TinyRow:
    """One published timing with the figures of its network.

    Attributes:
        network: The network's name.
        macs: The multiply-accumulates of one inference.
        outputs: The elements that operators with weights write in one inference.
        latency_ms: The published latency.
        family: The family of networks that it belongs to; empty if it is the only one of its family.
    """

    network: str
    macs: int
    outputs: int
    latency_ms: float
    family: str = ""


@dataclass(frozen=True)
class LatencyEstimate:
    """A predicted latency.

    Attributes:
        latency_ms: The prediction.
        low_ms: The lower end of the interval that the largest leave-one-out error gives.
        high_ms: Its upper end.
        text: The coefficients, and the timings that they were fitted to.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    text: str


def fit(rows: Sequence[TinyRow], clock_mhz: float) -> tuple[float, float]:
    """Fit the coefficients by non-negative least squares of the relative errors.

    Args:
        rows: The timings.
        clock_mhz: The core's clock.

    Returns:
        `(cycles_per_mac, cycles_per_output)`.

    Raises:
        ValueError: There are no timings.
    """
    if not rows:
        raise ValueError("there are no timings to fit the cost model to")
    scale = np.array([[1 / (clock_mhz * 1e3 * row.latency_ms)] for row in rows])
    design = np.array([[row.macs, row.outputs] for row in rows], np.float64) * scale
    target = np.ones(len(rows))
    both = np.linalg.lstsq(design, target, rcond=None)[0] if len(rows) > 1 else np.array([-1.0, -1.0])
    if np.all(both >= 0):
        return float(both[0]), float(both[1])
    # If one is negative, only multiply-accumulates are fitted: every network has them.
    return float(np.linalg.lstsq(design[:, :1], target, rcond=None)[0][0]), 0.0


def latency_ms(coefficients: tuple[float, float], macs: int, outputs: int, clock_mhz: float) -> float:
    """Compute a latency by the formula at the top of this module.

    Args:
        coefficients: `(cycles_per_mac, cycles_per_output)`.
        macs: The multiply-accumulates of one inference.
        outputs: The elements that operators with weights write.
        clock_mhz: The core's clock.

    Returns:
        The latency in ms.
    """
    return (coefficients[0] * macs + coefficients[1] * outputs) / (clock_mhz * 1e3)


def leave_one_out(
    rows: Sequence[TinyRow],
    clock_mhz: float,
    fit_coefficients: Callable[[Sequence[TinyRow], float], tuple[float, float]] = fit,
) -> list[float]:
    """Predict each timing with coefficients that were fitted without it and without other networks of its family.

    Args:
        rows: The timings.
        clock_mhz: The core's clock.
        fit_coefficients: The fit.

    Returns:
        The relative error of each prediction; positive if it is too slow.
    """
    errors = []
    for index, row in enumerate(rows):
        others = [
            other for at, other in enumerate(rows) if at != index and (not row.family or other.family != row.family)
        ]
        coefficients = fit_coefficients(others, clock_mhz)
        errors.append(latency_ms(coefficients, row.macs, row.outputs, clock_mhz) / row.latency_ms - 1)
    return errors


def by_macs(rows: Sequence[TinyRow], clock_mhz: float) -> tuple[float, float]:
    """Fit multiply-accumulates alone, as a baseline that the cost model is compared with.

    Args:
        rows: The timings.
        clock_mhz: The core's clock.

    Returns:
        `(cycles_per_mac, 0.0)`, with the mean over the timings.
    """
    return float(np.mean([row.latency_ms * clock_mhz * 1e3 / row.macs for row in rows])), 0.0


def kernel_spec(rows: Sequence[TinyRow], clock_mhz: float, fitted_with: str) -> KernelSpec:
    """Return the `[kernels]` table of a device profile.

    Args:
        rows: The timings.
        clock_mhz: The core's clock.
        fitted_with: The source of the timings, as a phrase.

    Returns:
        The coefficients and their leave-one-out errors, with four significant digits.

    Raises:
        ValueError: There are fewer than three timings.
    """
    if len(rows) < _MIN_TIMINGS:
        raise ValueError(f"fitting two coefficients and their error needs at least three timings, not {len(rows)}")
    per_mac, per_output = fit(rows, clock_mhz)
    errors = np.abs(leave_one_out(rows, clock_mhz))
    mean, largest = float(np.mean(errors)), float(np.max(errors))
    return KernelSpec(
        _rounded(per_mac), _rounded(per_output), len(rows), _rounded(mean), _rounded(largest), fitted_with
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def estimate_latency(
    profile: DeviceProfile, precision: str, macs: int | None, outputs: int | None
) -> LatencyEstimate | None:
    """Predict the latency of a network on the profile's first core.

    Args:
        profile: The device.
        precision: The precision of the model.
        macs: The multiply-accumulates of one inference, or None if unknown.
        outputs: The elements that operators with weights write, or None if unknown.

    Returns:
        The latency with its interval; None if the profile has no coefficients, or they are of another precision, or the
        network's figures are unknown.
    """
    spec = profile.kernels
    if spec is None or precision != PRECISION or macs is None or outputs is None:
        return None
    figure = latency_ms((spec.cycles_per_mac, spec.cycles_per_output), macs, outputs, profile.cores[0].clock_mhz)
    text = (
        f"{spec.cycles_per_mac:.3g} cycles per multiply-accumulate and {spec.cycles_per_output:.3g} per output, fitted"
        f" to {spec.fitted_with}; leave-one-out error: mean {100 * spec.mean_error:.1f} %, largest"
        f" {100 * spec.max_error:.1f} %"
    )
    return LatencyEstimate(figure, figure * (1 - spec.max_error), figure * (1 + spec.max_error), text)
