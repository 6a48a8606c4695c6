"""The cost model of the emulated tier: milliseconds from counted instructions, cache misses and parallel regions.

    cycles  = cycles_per_instruction * instructions + cycles_per_l1_miss * l1_misses
    latency = cycles / clock + (line_ns / threads + bus_line_ns) * memory_misses + region_us * (threads - 1) * regions

`instructions` and `l1_misses` are those of the critical path: what the runtime does not divide among its threads, and
the longest thread's part of each parallel region. Each region costs a hand-over to every other thread and waiting for
it. A cache line of 64 bytes from memory costs a latency, which the threads bear side by side, and time on the bus that
they share. More coefficients, such as one for each kind of instruction, could not be determined from few timings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgekit.config.device_profile import CostSpec, DeviceProfile, PropertyRange
from edgekit.core.records.emulated_measurement import UNCALIBRATED, Counts, CriticalPath, EmulatedLatency
from edgekit.devices.emulation.guest import LINE_BYTES

Floats = NDArray[np.float64]

# Prior of the memory bandwidth of one core with LPDDR4: a rough guess, used where the profile has no figure.
_TYPICAL_GB_PER_S = 10.0
# Cycles per instruction of a core without fitted coefficients: one, as if it issued one instruction per cycle.
_TYPICAL_CYCLES = 1.0
# Prior of an L1 miss: about half the latency of a second-level cache; out-of-order execution hides the rest.
_TYPICAL_L1_MISS_CYCLES = 10.0
# Prior of a parallel region for each further thread: some cache lines that move between cores.
_TYPICAL_REGION_US = 2.0
# Weight of the priors against the relative error of a timing: timings with a spread of 5 % outweigh the guess.
_PRIOR_WEIGHT = 0.05
# The share of unseen networks that an interval covers.
CONFIDENCE = 0.9
# Lower bound of an interval's relative half-width: published timings are rounded, and devices differ.
_MIN_RELATIVE_ERROR = 0.05
# Undivided shares below this are alike.
_SMALL_UNDIVIDED_SHARE = 0.1
# Of fewer errors than a quantile needs, the largest is widened by this factor.
_TOO_FEW_FACTOR = 1.5
# A network is unlike those fitted if a property of it is beyond theirs by more than this factor.
_UNLIKE_FACTOR = 1.5


@dataclass(frozen=True)
class Workload:
    """What one inference executes.

    Attributes:
        counts: The counts of one thread, with the caches of one of `threads` threads.
        path: The critical path of `threads` threads.
        threads: The number of threads.
        runtime: The runtime.
    """

    counts: Counts
    path: CriticalPath
    threads: int
    runtime: str = "litert"

    def plus(self, other: Workload, factor: float) -> Workload:
        """Add a multiple of another workload, which is executed after this one.

        Args:
            other: The other workload, with the same number of threads.
            factor: How often it is executed.

        Returns:
            The sum.
        """
        path = CriticalPath(
            self.path.regions + round(factor * other.path.regions),
            self.path.instructions + factor * other.path.instructions,
            self.path.l1_misses + factor * other.path.l1_misses,
        )
        return replace(self, counts=self.counts.plus(other.counts, factor), path=path)


@dataclass(frozen=True)
class TimingRow:
    """One published timing with the counts of the same network on the emulated core.

    Attributes:
        network: The network's name in the table.
        family: The family of networks that it belongs to.
        precision: The precision of the published model.
        work: What one inference executes on the emulated core.
        latency_ms: The published latency.
    """

    network: str
    family: str
    precision: str
    work: Workload
    latency_ms: float

    @property
    def threads(self) -> int:
        """The number of threads of the timing."""
        return self.work.threads


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of the cost model.

    Attributes:
        cycles_per_instruction: Cycles per executed instruction.
        cycles_per_l1_miss: Cycles per miss of the first-level data cache.
        line_ns: Nanoseconds per cache line from memory that the threads bear side by side.
        bus_line_ns: Nanoseconds per cache line on the bus that they share.
        region_us: Microseconds per parallel region for each further thread.
    """

    cycles_per_instruction: float
    cycles_per_l1_miss: float
    line_ns: float
    bus_line_ns: float
    region_us: float

    def latency_ms(self, work: Workload, clock_mhz: float) -> float:
        """Compute the latency by the formula at the top of this module.

        Args:
            work: What one inference executes.
            clock_mhz: The core's clock.

        Returns:
            The latency in ms.
        """
        return float(_terms(work, clock_mhz) @ np.array(_values(self)))


def _values(coefficients: Coefficients) -> tuple[float, ...]:
    return (
        coefficients.cycles_per_instruction,
        coefficients.cycles_per_l1_miss,
        coefficients.line_ns,
        coefficients.bus_line_ns,
        coefficients.region_us,
    )


def _terms(work: Workload, clock_mhz: float) -> Floats:
    """The milliseconds that one unit of each coefficient costs."""
    ms_per_cycle, lines = 1 / (clock_mhz * 1e3), work.counts.memory_misses / 1e6
    return np.array(
        [
            work.path.instructions * ms_per_cycle,
            work.path.l1_misses * ms_per_cycle,
            lines / work.threads,
            lines,
            work.path.regions * (work.threads - 1) / 1e3,
        ]
    )


@dataclass(frozen=True)
class Prediction:
    """A timing as predicted from other timings.

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


def priors(profile: DeviceProfile) -> Coefficients:
    """Return the coefficients of a device without timings.

    Args:
        profile: The device.

    Returns:
        Typical values; a line from memory costs half its time in latency and half on the bus.
    """
    line_ns = typical_line_ns(profile) / 2
    return Coefficients(_TYPICAL_CYCLES, _TYPICAL_L1_MISS_CYCLES, line_ns, line_ns, _TYPICAL_REGION_US)


def fit(rows: Sequence[TimingRow], profile: DeviceProfile, expected: Coefficients | None = None) -> Coefficients:
    """Fit the coefficients by non-negative least squares of the relative errors, in which families weigh the same.

    The expected costs of misses and regions are added as weak measurements: without these priors, few timings could not
    be divided between instructions, misses and regions.

    Args:
        rows: The timings.
        profile: The device, for its clock and bandwidth.
        expected: The expected coefficients; None for typical ones.

    Returns:
        The coefficients.

    Raises:
        ValueError: There are no timings.
    """
    if not rows:
        raise ValueError("there are no timings to fit the cost model to")
    clock_mhz, prior = profile.cores[0].clock_mhz, _values(expected or priors(profile))
    target = list(_family_weights(rows))
    design = [weight * _terms(row.work, clock_mhz) / row.latency_ms for weight, row in zip(target, rows, strict=True)]
    for index, value in enumerate(prior[1:], start=1):
        design.append(np.eye(len(prior))[index] * _PRIOR_WEIGHT / value)
        target.append(_PRIOR_WEIGHT)
    return Coefficients(*map(float, _non_negative_lstsq(np.array(design), np.array(target))))


def _family_weights(rows: Sequence[TimingRow]) -> Floats:
    """Weights with which each family counts as much as any other, however many of its timings are published."""
    sizes = Counter(row.family for row in rows)
    return np.array([math.sqrt(len(rows) / len(sizes) / sizes[row.family]) for row in rows])


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


def leave_family_out(rows: Sequence[TimingRow], profile: DeviceProfile) -> list[Prediction]:
    """Predict each timing with coefficients that were fitted to networks of other families.

    Args:
        rows: The timings of one device.
        profile: The device.

    Returns:
        A prediction for each timing; without a latency where no other family was timed with so many threads, since the
        coefficients of a profile are for numbers of threads that were fitted.
    """
    predictions = []
    for row in rows:
        others = [other for other in rows if other.family != row.family]
        predicted_ms = None
        if any(other.threads == row.threads for other in others):
            predicted_ms = fit(others, profile).latency_ms(row.work, profile.cores[0].clock_mhz)
        predictions.append(Prediction(row, predicted_ms))
    return predictions


def predict_by_ratio(rows: Sequence[TimingRow], figure: Callable[[TimingRow], float | None]) -> list[Prediction]:
    """Predict each timing by a ratio, as a baseline that the cost model is compared with.

    Args:
        rows: The timings.
        figure: Returns the quantity that the latency is assumed to be proportional to, such as the instructions.

    Returns:
        A prediction for each timing: its figure times the mean latency per figure of the timings of other families with
        the same number of threads and precision.
    """
    predictions = []
    for row in rows:
        row_figure = figure(row)
        ratios = [
            other.latency_ms / value
            for other in rows
            if other.family != row.family
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


def interval_width(pooled: Sequence[Prediction], several_threads: bool) -> tuple[float, int]:
    """Return the relative half-width of an interval that covers unseen networks with `CONFIDENCE`.

    It is the conformal quantile of the pooled errors as factors, |ln(predicted / measured)|: with n errors, the
    ceil((n + 1) * CONFIDENCE)-th smallest (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).
    With fewer than nine errors, of which even the largest covers less, it is 1.5 times the largest.

    Args:
        pooled: The predictions of all devices, each from networks of other families.
        several_threads: Whether the interval is for several threads or for one.

    Returns:
        The width w, so that the interval is from latency / (1 + w) to latency * (1 + w), and the number of predictions.
    """
    factors = sorted(
        abs(math.log(prediction.predicted_ms / prediction.row.latency_ms))
        for prediction in pooled
        if prediction.predicted_ms and (prediction.row.threads > 1) == several_threads
    )
    if not factors:
        return 1.0, 0
    rank = math.ceil((len(factors) + 1) * CONFIDENCE)
    factor = factors[rank - 1] if rank <= len(factors) else _TOO_FEW_FACTOR * factors[-1]
    return max(_MIN_RELATIVE_ERROR, math.expm1(factor)), len(factors)


def properties(work: Workload) -> dict[str, float]:
    """Return what makes networks alike for the cost model.

    Args:
        work: What one inference executes.

    Returns:
        Figures by name; those that are zero or unknown are left out.
    """
    counts, per_instruction = work.counts, 1 / max(1.0, work.counts.instructions)
    figures = {
        "instructions": counts.instructions,
        "multiply-add instructions per instruction": (counts.fmla + counts.dot + counts.simd) * per_instruction,
        "L1 misses per instruction": (counts.l1_misses or 0.0) * per_instruction,
        "lines from memory per instruction": counts.memory_misses * per_instruction,
        "parallel regions per instruction": work.path.regions * per_instruction,
        "undivided share of the work": _undivided_share(work) if work.path.regions else 0.0,
    }
    return {name: value for name, value in figures.items() if value > 0}


def _undivided_share(work: Workload) -> float:
    """The share of instructions that one thread executes alone; small ones are alike."""
    undivided = work.path.instructions - work.counts.instructions / work.threads
    share = undivided / (1 - 1 / work.threads) / max(1.0, work.counts.instructions)
    return max(_SMALL_UNDIVIDED_SHARE, share)


def property_spans(rows: Sequence[TimingRow]) -> dict[str, PropertyRange]:
    """Return the smallest and the largest value of each property among the fitted timings."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in properties(row.work).items():
            values.setdefault(name, []).append(value)
    return {name: PropertyRange(_rounded(min(found)), _rounded(max(found))) for name, found in values.items()}


def unlike(spec: CostSpec, work: Workload) -> tuple[str, ...]:
    """Explain in what a network is unlike all that the cost model was fitted to.

    Args:
        spec: The fitted cost model.
        work: What one inference of the network executes.

    Returns:
        A phrase for each property that is beyond the fitted networks' by more than a factor of 1.5.
    """
    phrases = [] if work.runtime == spec.runtime else [f"run by {work.runtime}, not by {spec.runtime}"]
    for name, value in properties(work).items():
        span = spec.properties.get(name)
        if span is None:
            continue
        if value > span.high * _UNLIKE_FACTOR:
            phrases.append(f"{value / span.high:.2g} times the most {name}")
        elif value < span.low / _UNLIKE_FACTOR:
            phrases.append(f"{value / span.low:.2g} times the fewest {name}")
    return tuple(phrases)


def cost_spec(
    coefficients: Coefficients, rows: Sequence[TimingRow], pooled: Sequence[Prediction], fitted_with: str
) -> CostSpec:
    """Return the `[cost]` table of a device profile.

    Args:
        coefficients: The fitted coefficients.
        rows: The timings that they were fitted to.
        pooled: The predictions of all devices, each from networks of other families, which earn the intervals.
        fitted_with: The source of the timings, as a phrase.

    Returns:
        The table, with figures of four significant digits.
    """
    one, one_rows = interval_width(pooled, several_threads=False)
    several, several_rows = interval_width(pooled, several_threads=True)
    return CostSpec(
        cycles_per_instruction=_rounded(coefficients.cycles_per_instruction),
        cycles_per_l1_miss=_rounded(coefficients.cycles_per_l1_miss),
        line_ns=_rounded(coefficients.line_ns),
        bus_line_ns=_rounded(coefficients.bus_line_ns),
        region_us=_rounded(coefficients.region_us),
        rows=len(rows),
        threads=tuple(sorted({row.threads for row in rows})),
        width_one_thread=_rounded(one),
        unseen_one_thread=one_rows,
        width_several_threads=_rounded(several),
        unseen_several_threads=several_rows,
        fitted_with=fitted_with,
        properties=property_spans(rows),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def coefficients_of(profile: DeviceProfile) -> Coefficients:
    """Return the profile's fitted coefficients, or typical ones.

    Args:
        profile: The device.

    Returns:
        The coefficients.
    """
    spec = profile.cost
    if spec is None:
        return priors(profile)
    return Coefficients(
        spec.cycles_per_instruction, spec.cycles_per_l1_miss, spec.line_ns, spec.bus_line_ns, spec.region_us
    )


def latency_ms(profile: DeviceProfile, work: Workload) -> float:
    """Predict a latency without an interval.

    Args:
        profile: The device.
        work: What one inference executes.

    Returns:
        The latency in ms.
    """
    return coefficients_of(profile).latency_ms(work, profile.cores[0].clock_mhz)


def predict(profile: DeviceProfile, cpu: str, work: Workload, inferences: int) -> EmulatedLatency:
    """Predict a latency with its interval.

    Args:
        profile: The device.
        cpu: The name of the emulated core, for the record.
        work: What one inference executes.
        inferences: The number of inferences that were counted, for the record.

    Returns:
        The latency. Its interval covers nine of ten networks of families that were not fitted; there is none where the
        profile has no coefficients. Latencies of several threads have one if timings of several threads were fitted.
    """
    spec, latency, several = profile.cost, latency_ms(profile, work), work.threads > 1
    result = EmulatedLatency(
        cpu, work.threads, inferences, work.counts, latency, None, None, UNCALIBRATED, path=work.path
    )
    if spec is None or (several and max(spec.threads) == 1):
        return result
    width, unseen = (
        (spec.width_several_threads, spec.unseen_several_threads)
        if several
        else (spec.width_one_thread, spec.unseen_one_thread)
    )
    threads = "several threads" if several else "1 thread"
    text = (
        f"{spec.fitted_with}; interval: {CONFIDENCE:.0%} of unseen networks, from {unseen} timings at {threads}"
        " of families left out of the fit"
    ).replace("%", " %")
    return replace(
        result,
        low_ms=latency / (1 + width),
        high_ms=latency * (1 + width),
        calibration=text,
        unlike=unlike(spec, work),
    )
