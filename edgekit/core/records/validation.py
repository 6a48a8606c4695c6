"""The record `validation.json` beside an artifact: its outputs and its task metric, compared with its source's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.numerics.output_comparison import Comparison, format_figure
from edgekit.core.numerics.statistics import ClassDrift, Interval, detectable_drop, samples_to_decide
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.precisions import find_precision, is_precision
from edgekit.core.values.specs import HOST, Variant
from edgekit.core.values.typed_json import Count, FileName, Name, NotNegative, PositiveCount, Sha256, Share

VALIDATION_SCHEMA = 3

# The keys that had another name in older versions.
_OLDER = {2: {"how": "tag", "hard": "stress", "hard_cases": "stress_cases"}}

VALIDATION_FILE = "validation.json"


def validation_file(device: str | None, *, executor: str = "", runtime: str = "") -> str:
    """Return the name of the file: `validation.json`, `validation-raspberry-pi-4b.json`.

    Args:
        device: The device on which the artifact ran; None for this host.
        executor: The executor, where it is neither the host nor the emulated core.
        runtime: The runtime, where it is not the target's default.
    """
    return "-".join(["validation", *(part for part in (device, executor, runtime) if part)]) + ".json"


@dataclass(frozen=True)
class Drift:
    """The task metric of source and artifact on the same test set.

    Attributes:
        metric: The name of the task metric.
        source: The source's value.
        artifact: The artifact's value.
        drop: The difference in the metric's unit, positive if the artifact is worse.
        samples: The number of test samples.
        top1_agreement: The share of the samples that both assign to the same class (classifiers only).
        min_top1_agreement: The tolerance of `top1_agreement`.
        interval: The 95 % confidence interval of the drop (paired bootstrap).
        variance: The variance of the drop of one sample; None if the metric is not a mean over samples.
        lost: The number of samples that only the source classifies correctly (classifiers only).
        won: The number of samples that only the artifact classifies correctly (classifiers only).
        p_value: The p-value of McNemar's test (classifiers only).
        classes: The drift of each class, the largest drop first (classifiers only).
    """

    metric: Name
    source: float
    artifact: float
    drop: float
    samples: PositiveCount
    top1_agreement: Share | None
    min_top1_agreement: Share | None
    interval: Interval | None = None
    variance: NotNegative | None = None
    lost: Count | None = None
    won: Count | None = None
    p_value: Share | None = None
    classes: tuple[ClassDrift, ...] = ()

    @property
    def detectable(self) -> float | None:
        """The smallest drop that this test set detects with a power of 80 %, or None if the variance is unknown."""
        return None if self.variance is None else detectable_drop(self.samples, self.variance)

    def decided(self, limit: float) -> bool:
        """Return whether the drop's interval lies on one side of a limit.

        Args:
            limit: The limit of the drop.

        Returns:
            False if the limit is inside the interval, so that another test set may give another verdict.
        """
        return self.interval is None or self.interval.high <= limit or self.interval.low > limit

    def needed(self, limit: float) -> int | None:
        """Estimate the number of samples at which the interval would lie on one side of a limit.

        Args:
            limit: The limit of the drop.

        Returns:
            The number of samples, assuming that the drop is the measured one; None if it cannot be estimated.
        """
        return None if self.variance is None else samples_to_decide(limit, self.drop, self.variance, self.samples)

    @property
    def passed(self) -> bool:
        """Whether the top-1 agreement is within its tolerance; the drop itself is limited by a budget."""
        agreement, limit = self.top1_agreement, self.min_top1_agreement
        return agreement is None or limit is None or agreement >= limit


# An SQNR that no quantized file reaches; see `Validation.unquantized`.
_FLOAT_DB = 110.0


def _has_sqnr(output: Comparison) -> bool:
    return any(figure.name == "sqnr_db" for figure in output.figures)


@dataclass(frozen=True)
class Validation:
    """The content of `validation.json` or `validation-<device>.json`.

    Attributes:
        model: The model's name.
        kind: The kind of its source.
        target: The artifact's target.
        precision: The artifact's precision.
        artifact_sha256: The sha256 of the artifact that was validated.
        runtime: The runtime that ran it.
        comparisons: One comparison an output, on the golden samples.
        drift: The change of the task metric, if the test set is available.
        device: The board, or the device on whose emulated core, the artifact ran; None for this host.
        against_host: One comparison an output with the artifact's outputs on this host, for a device.
        stress: One comparison an output on the stress inputs.
        stress_cases: The names of the stress inputs, in the order of the samples.
        batches: One comparison an output and batch size, on the golden samples in batches; for a source that keeps
        state,
            one an output over calls in a row.
        tag: The tag of the variant, such as `tuned`.
        arithmetic: The instruction set of the processor that computed the outputs, and how, such as `x86_64 AVX2, int8
            weights as uint8`; empty for devices.
        by_default: One comparison an output that is worse in a session without options on this processor, as
            applications open it: a property of the processor and not of the file, so it has no tolerance.
        schema_version: The version of the file's format.
    """

    model: FileName
    kind: FileName
    target: FileName
    precision: FileName
    artifact_sha256: Sha256
    runtime: FileName
    comparisons: tuple[Comparison, ...]
    drift: Drift | None
    device: FileName | None = None
    against_host: tuple[Comparison, ...] = ()
    stress: tuple[Comparison, ...] = ()
    stress_cases: tuple[Name, ...] = ()
    batches: tuple[Comparison, ...] = ()
    tag: Name = ""
    executor: Name = ""
    arithmetic: Name = ""
    by_default: tuple[Comparison, ...] = ()
    schema_version: int = VALIDATION_SCHEMA

    def __post_init__(self) -> None:
        for comparison in self.stress:
            if comparison.worst_sample is not None and comparison.worst_sample >= len(self.stress_cases):
                raise ValueError(f"stress_cases must have a name for the sample {comparison.worst_sample}")

    @property
    def place(self) -> str:
        """Where it ran, for people: a device's name, and the executor or the runtime where they are not the usual."""
        device = self.device or HOST
        if self.executor:
            return f"{device} by {self.executor}"
        return f"{device} in {self.runtime}" if device == HOST else device

    @property
    def variant(self) -> Variant:
        """The artifact's variant."""
        return Variant(self.target, self.precision, self.tag)

    @property
    def passed(self) -> bool:
        """Whether outputs were compared, every one with a tolerance, and every value is within its tolerance."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """One clause for each value that exceeds its tolerance, and for what was not compared."""
        clauses = [] if self.comparisons else ["no output was compared"]
        if self.comparisons and not any(output.evidence or output.problem for output in self.comparisons):
            clauses.append(
                f"the source returns the same outputs for all {self.comparisons[0].samples} samples, which is no"
                " evidence of equality"
            )
        if self._on_device and not self.against_host:
            clauses.append("no output was compared with that on this host")
        for output in self.comparisons:
            clauses += output.failures
            if output.passed and all(figure.limit is None for figure in output.figures):
                clauses.append(f"output {output.output}: no figure has a tolerance")
        if self.unquantized and find_precision(self.precision).needs_calibration:
            clauses.append(f"nothing was quantized: the file of {self.precision} has no error beyond that of float32")
        clauses += [f"against this host: {clause}" for output in self.against_host for clause in output.failures]
        clauses += [f"on {self.stress_case(output)}: {clause}" for output in self.stress for clause in output.failures]
        clauses += [clause for output in self.batches for clause in output.failures]
        if self.drift is not None and not self.drift.passed:
            agreement, limit = (
                format_figure(value) for value in (self.drift.top1_agreement, self.drift.min_top1_agreement)
            )
            clauses.append(f"top1_agreement {agreement} on {self.drift.samples} test samples is outside {limit}")
        return tuple(clauses)

    @property
    def processor_note(self) -> str:
        """Where an application without options gets a larger error on this processor, a clause that says so."""
        worst = min(self.by_default, key=lambda output: output.value("sqnr_db") or 0.0, default=None)
        if worst is None:
            return ""
        own = next(output for output in self.comparisons if output.output == worst.output)
        figures = [format_figure(output.value("sqnr_db")) for output in (worst, own)]
        return (
            f"{self.runtime} without options has an SQNR of {figures[0]} dB on this processor ({self.arithmetic}), the"
            f" file itself {figures[1]} dB"
        )

    @property
    def unquantized(self) -> bool:
        """Whether a quantized artifact computes what its float source does, up to the rounding of float32.

        int8 weights cost 25 to 45 dB, int16 activations reach 98 dB at most (20 log10 2^16 + 1.8 dB); float32 has 130
        to 140 dB. Above 110 dB nothing was quantized: the layers are too small for the converter, or not of a kind
        that it quantizes.
        """
        if not is_precision(self.precision) or find_precision(self.precision).is_float:
            return False
        outputs = [output for output in self.comparisons if output.evidence and _has_sqnr(output)]
        return bool(outputs) and all(output.sqnr_db >= _FLOAT_DB for output in outputs)

    @property
    def _on_device(self) -> bool:
        return bool(self.executor) or self.device not in (None, HOST)

    def stress_case(self, comparison: Comparison) -> str:
        """Return the name of the stress input on which an output differs most.

        Args:
            comparison: One of `stress`.

        Returns:
            The name, or "stress inputs" if no sample is the worst.
        """
        return "stress inputs" if comparison.worst_sample is None else self.stress_cases[comparison.worst_sample]

    def worst(self, figure: str) -> float | None:
        """Return the largest value of a metric over all outputs that are quantities; ids have no distances.

        Args:
            figure: The name of the metric, such as `max_abs_error`.

        Returns:
            The largest value, or None if no output has one.
        """
        quantities = [output for output in self.comparisons if output.value("agreement") is None]
        values = [value for output in quantities if (value := output.value(figure)) is not None]
        return max(values) if values else None


def load_validation(path: Path) -> Validation:
    """Read a `validation.json` or `validation-<device>.json`.

    Args:
        path: The file.

    Returns:
        The record.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    return validation_from_dict(read_json(path, "validation result"), path)


def validation_from_dict(data: Any, path: Path) -> Validation:
    """Decode a record.

    Args:
        data: What `dataclasses.asdict` returned, after a round trip through JSON. The key `passed` is ignored.
        path: The file that the data came from, for error messages.

    Returns:
        The record.

    Raises:
        InputError: The data are damaged or of an unknown version.
    """
    return decode_versioned(
        Validation,
        data,
        path,
        "a validation result",
        "validate again",
        version=VALIDATION_SCHEMA,
        older=_OLDER,
        derived=("passed",),
        always=("against_host", "stress", "stress_cases", "batches"),
    )
