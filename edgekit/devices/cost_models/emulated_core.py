"""The cost model of the emulated tier: milliseconds from counted instructions and cache misses.

    cycles  = cycles_per_instruction * instructions + cycles_per_l1_miss * l1_misses
    latency = cycles / (clock * threads) + line_ns(threads) * memory_misses

Threads share the cycles. `line_ns`, the cost of loading a cache line of 64 bytes from memory, is fitted separately for
each number of threads, since threads compete for the bus; it also contains their synchronization. More coefficients,
such as one for each kind of instruction, could not be determined from the few published timings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgekit.config.device_profile import CostSpec, DeviceProfile, ThreadCost
from edgekit.core.records.emulated_measurement import UNCALIBRATED, Counts, EmulatedLatency
from edgekit.devices.emulation.guest import LINE_BYTES

Floats = NDArray[np.float64]

# Prior of the memory bandwidth of one core with LPDDR4: a rough guess, used where the profile has no figure.
_TYPICAL_GB_PER_S = 10.0
# Cycles per instruction of a core without fitted coefficients: one, as if it issued one instruction per cycle.
_TYPICAL_CYCLES = 1.0
# Prior of an L1 miss: about half the latency of a second-level cache; out-of-order execution hides the rest.
_TYPICAL_L1_MISS_CYCLES = 10.0
# Weight of the priors against the relative error of a timing: timings with a spread of 5 % outweigh the guess.
_PRIOR_WEIGHT = 0.05
# Lower bound of an interval's relative half-width: published timings are rounded, and the networks resemble each other.
_MIN_RELATIVE_ERROR = 0.05


@dataclass(frozen=True)
class TimingRow:
    """One published timing with the counts of the same network on the emulated core.

    Attributes:
        network: The network's name in the table.
        precision: The precision of the published model.
        threads: The number of threads of the timing.
        counts: What one inference executes on the emulated core.
        latency_ms: The published latency.
    """

    network: str
    precision: str
    threads: int
    counts: Counts
    latency_ms: float


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of the cost model.

    Attributes:
        cycles_per_instruction: Cycles per executed instruction.
        cycles_per_l1_miss: Cycles per miss of the first-level data cache.
        line_ns: Nanoseconds per cache line from memory, by number of threads.
    """

    cycles_per_instruction: float
    cycles_per_l1_miss: float
    line_ns: dict[int, float]

    def latency_ms(self, counts: Counts, threads: int, clock_mhz: float) -> float:
        """Compute the latency by the formula at the top of this module.

        Args:
            counts: What one inference executes.
            threads: The number of threads; if it was not fitted, the nearest fitted number's `line_ns` is used.
            clock_mhz: The core's clock.

        Returns:
            The latency in ms.
        """
        nearest = min(self.line_ns, key=lambda count: (abs(count - threads), count))
        cycles = self.cycles_per_instruction * counts.instructions + self.cycles_per_l1_miss * (counts.l1_misses or 0.0)
        return cycles / (clock_mhz * 1e3 * threads) + self.line_ns[nearest] * counts.memory_misses / 1e6


@dataclass(frozen=True)
class Prediction:
    """A timing as predicted from the other timings.

    Attributes:
        row: The timing.
        predicted_ms: The predicted latency, or None if the other timings do not allow a prediction.
    """

    row: TimingRow
    predicted_ms: float | None

    @property
    def error(self) -> float | None:
        """The relative error, (predicted - measured) / measured; positive if the prediction is too slow."""
        return None if self.predicted_ms is None else self.predicted_ms / self.row.latency_ms - 1


def typical_line_ns(profile: DeviceProfile) -> float:
    """Return the cost of a cache line from memory without measurements.

    Args:
        profile: The device.

    Returns:
        The time in ns that `LINE_BYTES` take at the profile's peak bandwidth, or at a typical one if that is unknown.
    """
    return LINE_BYTES / (profile.memory.bandwidth_gb_per_s or _TYPICAL_GB_PER_S)


def fit(rows: Sequence[TimingRow], profile: DeviceProfile) -> Coefficients:
    """Fit the coefficients by non-negative least squares of the relative errors.

    The typical costs of a miss are added as weak measurements: without these priors, a single timing could not be
    divided between instructions and misses.

    Args:
        rows: The timings.
        profile: The device, for its clock and bandwidth.

    Returns:
        The coefficients.

    Raises:
        ValueError: There are no timings.
    """
    if not rows:
        raise ValueError("there are no timings to fit the cost model to")
    counts = sorted({row.threads for row in rows})
    priors = [_TYPICAL_L1_MISS_CYCLES, *(typical_line_ns(profile) for _ in counts)]
    design = np.zeros((len(rows) + len(priors), 1 + len(priors)))
    target = np.ones(len(design))
    for index, row in enumerate(rows):
        ms_per_cycle = 1 / (profile.cores[0].clock_mhz * 1e3 * row.threads)
        design[index, 0] = row.counts.instructions * ms_per_cycle / row.latency_ms
        design[index, 1] = (row.counts.l1_misses or 0.0) * ms_per_cycle / row.latency_ms
        design[index, 2 + counts.index(row.threads)] = row.counts.memory_misses / 1e6 / row.latency_ms
    for index, value in enumerate(priors):
        design[len(rows) + index, 1 + index] = _PRIOR_WEIGHT / value
        target[len(rows) + index] = _PRIOR_WEIGHT
    per_instruction, per_miss, *lines = map(float, _non_negative_lstsq(design, target))
    return Coefficients(per_instruction, per_miss, dict(zip(counts, lines, strict=True)))


def _non_negative_lstsq(design: Floats, target: Floats) -> Floats:
    """Solve least squares over x >= 0 by trying every set of non-zero unknowns; there are at most five."""
    unknowns = design.shape[1]
    best, least = np.zeros(unknowns), float("inf")
    for size in range(1, unknowns + 1):
        for columns in combinations(range(unknowns), size):
            solution = np.linalg.lstsq(design[:, columns], target, rcond=None)[0]
            residual = float(np.sum((design[:, columns] @ solution - target) ** 2))
            if np.all(solution >= 0) and residual < least:
                best, least = np.zeros(unknowns), residual
                best[list(columns)] = solution
    return best


def leave_one_out(rows: Sequence[TimingRow], profile: DeviceProfile) -> list[Prediction]:
    """Predict each timing with coefficients that were fitted without it.

    Args:
        rows: The timings.
        profile: The device.

    Returns:
        A prediction for each timing; without a latency where no other timing has the same number of threads.
    """
    predictions = []
    for index, row in enumerate(rows):
        others = [other for at, other in enumerate(rows) if at != index]
        predicted_ms = None
        if any(other.threads == row.threads for other in others):
            predicted_ms = fit(others, profile).latency_ms(row.counts, row.threads, profile.cores[0].clock_mhz)
        predictions.append(Prediction(row, predicted_ms))
    return predictions


def predict_by_ratio(rows: Sequence[TimingRow], figure: Callable[[TimingRow], float | None]) -> list[Prediction]:
    """Predict each timing by a ratio, as a baseline that the cost model is compared with.

    Args:
        rows: The timings.
        figure: Returns the quantity that the latency is assumed to be proportional to, such as the instructions.

    Returns:
        A prediction for each timing: its figure times the mean latency per figure of the other timings with the same
        number of threads and precision.
    """
    predictions = []
    for index, row in enumerate(rows):
        row_figure = figure(row)
        ratios = [
            other.latency_ms / value
            for at, other in enumerate(rows)
            if at != index
            and (other.threads, other.precision) == (row.threads, row.precision)
            and (value := figure(other))
        ]
        predicted_ms = row_figure * float(np.mean(ratios)) if row_figure and ratios else None
        predictions.append(Prediction(row, predicted_ms))
    return predictions


def errors(predictions: Sequence[Prediction]) -> tuple[float, float] | None:
    """Summarize the errors of predictions.

    Args:
        predictions: The predictions.

    Returns:
        The mean and the maximum of the absolute relative errors, or None if no prediction has an error.
    """
    absolute = [abs(prediction.error) for prediction in predictions if prediction.error is not None]
    return (float(np.mean(absolute)), max(absolute)) if absolute else None


def cost_spec(coefficients: Coefficients, predictions: Sequence[Prediction], fitted_with: str) -> CostSpec:
    """Return the `[cost]` table of a device profile.

    Args:
        coefficients: The fitted coefficients.
        predictions: The leave-one-out predictions. If they contain no error for a number of threads, the error over all
            numbers of threads is used.
        fitted_with: The source of the timings, as a phrase.

    Returns:
        The table, with figures of four significant digits.
    """
    threads = []
    for count, line_ns in sorted(coefficients.line_ns.items()):
        of_count = [prediction for prediction in predictions if prediction.row.threads == count]
        mean, largest = errors(of_count) or errors(predictions) or (1.0, 1.0)
        threads.append(ThreadCost(count, _rounded(line_ns), len(of_count), _rounded(mean), _rounded(largest)))
    cycles = (_rounded(coefficients.cycles_per_instruction), _rounded(coefficients.cycles_per_l1_miss))
    return CostSpec(*cycles, tuple(threads), fitted_with)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _coefficients(profile: DeviceProfile, threads: int) -> Coefficients:
    """The profile's fitted coefficients, or typical ones."""
    spec = profile.cost
    if spec is None:
        return Coefficients(_TYPICAL_CYCLES, _TYPICAL_L1_MISS_CYCLES, {threads: typical_line_ns(profile)})
    lines = {cost.count: cost.line_ns for cost in spec.threads}
    return Coefficients(spec.cycles_per_instruction, spec.cycles_per_l1_miss, lines)


def latency_ms(profile: DeviceProfile, counts: Counts, threads: int) -> float:
    """Predict a latency without an interval.

    Args:
        profile: The device.
        counts: What one inference executes.
        threads: The number of threads.

    Returns:
        The latency in ms.
    """
    return _coefficients(profile, threads).latency_ms(counts, threads, profile.cores[0].clock_mhz)


def predict(profile: DeviceProfile, cpu: str, counts: Counts, threads: int, inferences: int) -> EmulatedLatency:
    """Predict a latency with its interval.

    Args:
        profile: The device.
        cpu: The name of the emulated core, for the record.
        counts: What one inference executes.
        threads: The number of threads.
        inferences: The number of inferences that were counted, for the record.

    Returns:
        The latency. Its interval is the largest leave-one-out error of the fit, and at least 5 %; there is none where
        the profile has no coefficients for this number of threads.
    """
    spec, latency = profile.cost, latency_ms(profile, counts, threads)
    cost = None if spec is None else next((cost for cost in spec.threads if cost.count == threads), None)
    if spec is None or cost is None:
        return EmulatedLatency(cpu, threads, inferences, counts, latency, None, None, UNCALIBRATED)
    width = max(cost.max_error, _MIN_RELATIVE_ERROR)
    thread_text = "1 thread" if threads == 1 else f"{threads} threads"
    text = f"{spec.fitted_with}; {cost.rows} timings at {thread_text}, mean error {100 * cost.mean_error:.1f} %"
    return EmulatedLatency(
        cpu, threads, inferences, counts, latency, latency * (1 - width), latency * (1 + width), text
    )
