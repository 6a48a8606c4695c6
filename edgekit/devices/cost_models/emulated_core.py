"""The cost model of the emulated tier: milliseconds from counted instructions and cache misses.

    cycles  = cycles_per_instruction * instructions + cycles_per_l1_miss * l1_misses
    latency = cycles / (clock * threads) + line_ns(threads) * memory_misses

Threads share the cycles, and the bus: `line_ns`, the cost of a line of 64 bytes from memory, is fitted for each number
of threads, and holds their wait for one another too. That is as many coefficients as a handful of published timings can
carry; one for each kind of instruction is not.
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

_USUAL_GB_PER_S = 10.0  # what streams from LPDDR4 into one core, about: a guess to start from, not a fact
_USUAL_CYCLES = 1.0
_USUAL_L1_MISS_CYCLES = 10.0  # about half of what a load from a second-level cache takes: the rest is hidden
_PRIOR_WEIGHT = 0.05  # against the relative error of a row: timings of 5 % spread say more than the guess
_LEAST_ERROR = 0.05  # no interval is narrower: published timings are rounded, and their networks alike


@dataclass(frozen=True)
class TimingRow:
    """One published timing beside what the same network executes on the emulated core."""

    network: str
    precision: str
    threads: int
    counts: Counts
    latency_ms: float


@dataclass(frozen=True)
class Coefficients:
    """`line_ns` by number of threads."""

    cycles_per_instruction: float
    cycles_per_l1_miss: float
    line_ns: dict[int, float]

    def latency_ms(self, counts: Counts, threads: int, clock_mhz: float) -> float:
        """The model's formula. A number of threads that was not fitted costs a line what the nearest one does."""
        nearest = min(self.line_ns, key=lambda count: (abs(count - threads), count))
        cycles = self.cycles_per_instruction * counts.instructions + self.cycles_per_l1_miss * (counts.l1_misses or 0.0)
        return cycles / (clock_mhz * 1e3 * threads) + self.line_ns[nearest] * counts.memory_misses / 1e6


@dataclass(frozen=True)
class Prediction:
    """A row predicted from the others; `error` is relative, positive when too slow. None: nothing to predict from."""

    row: TimingRow
    predicted_ms: float | None

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured"""
        return None if self.predicted_ms is None else self.predicted_ms / self.row.latency_ms - 1


def typical_line_ns(profile: DeviceProfile) -> float:
    """A line at the profile's peak bandwidth, or at a usual one."""
    return LINE_BYTES / (profile.memory.bandwidth_gb_per_s or _USUAL_GB_PER_S)


def fit(rows: Sequence[TimingRow], profile: DeviceProfile) -> Coefficients:
    """The coefficients, none negative, of the least sum of squared relative errors.

    The usual costs of a miss count as weak measurements of their own: without them, a single row would tell nothing of
    how its time divides. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("there is nothing to fit with")
    counts = sorted({row.threads for row in rows})
    usual = [_USUAL_L1_MISS_CYCLES, *(typical_line_ns(profile) for _ in counts)]
    design = np.zeros((len(rows) + len(usual), 1 + len(usual)))
    target = np.ones(len(design))
    for index, row in enumerate(rows):
        ms_per_cycle = 1 / (profile.cores[0].clock_mhz * 1e3 * row.threads)
        design[index, 0] = row.counts.instructions * ms_per_cycle / row.latency_ms
        design[index, 1] = (row.counts.l1_misses or 0.0) * ms_per_cycle / row.latency_ms
        design[index, 2 + counts.index(row.threads)] = row.counts.memory_misses / 1e6 / row.latency_ms
    for index, value in enumerate(usual):
        design[len(rows) + index, 1 + index] = _PRIOR_WEIGHT / value
        target[len(rows) + index] = _PRIOR_WEIGHT
    per_instruction, per_miss, *lines = map(float, _not_negative(design, target))
    return Coefficients(per_instruction, per_miss, dict(zip(counts, lines, strict=True)))


def _not_negative(design: Floats, target: Floats) -> Floats:
    """Least squares over x >= 0, by trying every set of unknowns that may be other than 0: there are five at most."""
    unknowns = design.shape[1]
    best, least = np.zeros(unknowns), float("inf")
    for size in range(1, unknowns + 1):
        for chosen in combinations(range(unknowns), size):
            part = np.linalg.lstsq(design[:, chosen], target, rcond=None)[0]
            rest = float(np.sum((design[:, chosen] @ part - target) ** 2))
            if np.all(part >= 0) and rest < least:
                best, least = np.zeros(unknowns), rest
                best[list(chosen)] = part
    return best


def leave_one_out(rows: Sequence[TimingRow], profile: DeviceProfile) -> list[Prediction]:
    """Each row predicted by a model that was fitted without it."""
    found = []
    for index, row in enumerate(rows):
        others = [other for at, other in enumerate(rows) if at != index]
        known = any(other.threads == row.threads for other in others)
        made = fit(others, profile).latency_ms(row.counts, row.threads, profile.cores[0].clock_mhz) if known else None
        found.append(Prediction(row, made))
    return found


def predict_by_ratio(rows: Sequence[TimingRow], figure: Callable[[TimingRow], float | None]) -> list[Prediction]:
    """The plain alternative: a figure times the mean ratio of the other rows of its threads and precision."""
    found = []
    for index, row in enumerate(rows):
        own = figure(row)
        ratios = [
            other.latency_ms / value
            for at, other in enumerate(rows)
            if at != index
            and (other.threads, other.precision) == (row.threads, row.precision)
            and (value := figure(other))
        ]
        found.append(Prediction(row, own * float(np.mean(ratios)) if own and ratios else None))
    return found


def errors(predictions: Sequence[Prediction]) -> tuple[float, float] | None:
    """The mean and the largest of the absolute relative errors; None where nothing could be predicted."""
    known = [abs(item.error) for item in predictions if item.error is not None]
    return (float(np.mean(known)), max(known)) if known else None


def cost_spec(coefficients: Coefficients, predictions: Sequence[Prediction], fitted_with: str) -> CostSpec:
    """What goes into the profile. Where one row is all there is of a number of threads, all rows' error stands in."""
    threads = []
    for count, line_ns in sorted(coefficients.line_ns.items()):
        own = [item for item in predictions if item.row.threads == count]
        mean, largest = errors(own) or errors(predictions) or (1.0, 1.0)
        threads.append(ThreadCost(count, _short(line_ns), len(own), _short(mean), _short(largest)))
    cycles = (_short(coefficients.cycles_per_instruction), _short(coefficients.cycles_per_l1_miss))
    return CostSpec(*cycles, tuple(threads), fitted_with)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _coefficients(profile: DeviceProfile, threads: int) -> Coefficients:
    """The profile's own, or the usual ones."""
    spec = profile.cost
    if spec is None:
        return Coefficients(_USUAL_CYCLES, _USUAL_L1_MISS_CYCLES, {threads: typical_line_ns(profile)})
    lines = {item.count: item.line_ns for item in spec.threads}
    return Coefficients(spec.cycles_per_instruction, spec.cycles_per_l1_miss, lines)


def latency_ms(profile: DeviceProfile, counts: Counts, threads: int) -> float:
    """The figure without its interval."""
    return _coefficients(profile, threads).latency_ms(counts, threads, profile.cores[0].clock_mhz)


def predict(profile: DeviceProfile, cpu: str, counts: Counts, threads: int, inferences: int) -> EmulatedLatency:
    """The figure of the emulated tier. Its interval is the largest error of the fit, and at least 5 %."""
    spec, latency = profile.cost, latency_ms(profile, counts, threads)
    own = None if spec is None else next((item for item in spec.threads if item.count == threads), None)
    if spec is None or own is None:
        return EmulatedLatency(cpu, threads, inferences, counts, latency, None, None, UNCALIBRATED)
    width = max(own.max_error, _LEAST_ERROR)
    text = f"{spec.fitted_with}; {own.rows} rows of {threads} threads, mean error {100 * own.mean_error:.1f} %"
    return EmulatedLatency(
        cpu, threads, inferences, counts, latency, latency * (1 - width), latency * (1 + width), text
    )
