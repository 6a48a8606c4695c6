"""The cost model of microcontrollers: milliseconds of an int8 network from its graph.

    cycles = cycles_per_mac * multiply-accumulates + cycles_per_output * outputs

A core without a cache to speak of takes what its kernels' instructions take: a share for each multiply-accumulate,
and a share for each element written, whose sum has to be scaled back to int8 and clamped. `outputs` are those of the
operators that multiply by weights; depthwise and pointwise convolutions write many for the work they do. Two
coefficients are what four published networks can carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.config.device_profile import DeviceProfile, KernelSpec

PRECISION = "int8"
"""What the published networks are in; other kernels take other times."""


@dataclass(frozen=True)
class TinyRow:
    """One published timing beside its network's figures: multiply-accumulates and outputs of one inference."""

    network: str
    macs: int
    outputs: int
    latency_ms: float


@dataclass(frozen=True)
class LatencyEstimate:
    """Milliseconds, with the interval that the largest left-out error gives; `text` says what it was fitted with."""

    latency_ms: float
    low_ms: float
    high_ms: float
    text: str


def fit(rows: Sequence[TinyRow], clock_mhz: float) -> tuple[float, float]:
    """(cycles_per_mac, cycles_per_output), none negative, of the least sum of squared relative errors.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("there is nothing to fit with")
    scale = np.array([[1 / (clock_mhz * 1e3 * row.latency_ms)] for row in rows])
    design = np.array([[row.macs, row.outputs] for row in rows], np.float64) * scale
    one = np.ones(len(rows))
    both = np.linalg.lstsq(design, one, rcond=None)[0] if len(rows) > 1 else np.array([-1.0, -1.0])
    if np.all(both >= 0):
        return float(both[0]), float(both[1])
    # With a negative share the other one alone: of the two, multiply-accumulates are what every network has.
    return float(np.linalg.lstsq(design[:, :1], one, rcond=None)[0][0]), 0.0


def latency_ms(coefficients: tuple[float, float], macs: int, outputs: int, clock_mhz: float) -> float:
    """The model's formula."""
    return (coefficients[0] * macs + coefficients[1] * outputs) / (clock_mhz * 1e3)


def leave_one_out(
    rows: Sequence[TinyRow],
    clock_mhz: float,
    made: Callable[[Sequence[TinyRow], float], tuple[float, float]] = fit,
) -> list[float]:
    """The relative error of each row, predicted by a model that was fitted without it; positive when too slow."""
    found = []
    for index, row in enumerate(rows):
        others = [other for at, other in enumerate(rows) if at != index]
        found.append(latency_ms(made(others, clock_mhz), row.macs, row.outputs, clock_mhz) / row.latency_ms - 1)
    return found


def by_macs(rows: Sequence[TinyRow], clock_mhz: float) -> tuple[float, float]:
    """The plain alternative: cycles of a multiply-accumulate, the mean over the rows."""
    return float(np.mean([row.latency_ms * clock_mhz * 1e3 / row.macs for row in rows])), 0.0


def kernel_spec(rows: Sequence[TinyRow], clock_mhz: float, fitted_with: str) -> KernelSpec:
    """What goes into the profile. Raises ValueError with less than three rows: the error could not be told."""
    if len(rows) < 3:
        raise ValueError("a fit of two coefficients, and its error, take three timings at least")
    per_mac, per_output = fit(rows, clock_mhz)
    errors = np.abs(leave_one_out(rows, clock_mhz))
    mean, largest = float(np.mean(errors)), float(np.max(errors))
    return KernelSpec(_short(per_mac), _short(per_output), len(rows), _short(mean), _short(largest), fitted_with)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def estimate_latency(
    profile: DeviceProfile, precision: str, macs: int | None, outputs: int | None
) -> LatencyEstimate | None:
    """The latency of a network on the profile's first core; None where no timings were fitted, or not of its precision,
    or the file does not tell."""
    spec = profile.kernels
    if spec is None or precision != PRECISION or macs is None or outputs is None:
        return None
    figure = latency_ms((spec.cycles_per_mac, spec.cycles_per_output), macs, outputs, profile.cores[0].clock_mhz)
    text = (
        f"{spec.cycles_per_mac:.3g} cycles a multiply-accumulate and {spec.cycles_per_output:.3g} an output, fitted"
        f" with {spec.fitted_with}; each predicted from the others: mean error {100 * spec.mean_error:.1f} %, largest"
        f" {100 * spec.max_error:.1f} %"
    )
    return LatencyEstimate(figure, figure * (1 - spec.max_error), figure * (1 + spec.max_error), text)
