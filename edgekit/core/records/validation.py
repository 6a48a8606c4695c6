"""The verdict on whether an artifact computes what its source computes, and what that costs at the task."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.numerics.output_comparison import Comparison, comparison_from_dict, format_figure
from edgekit.core.numerics.statistics import ClassDrift, Interval, detectable_drop, samples_to_decide
from edgekit.core.records.versioned_json import decode_versioned
from edgekit.core.values.specs import HOST, Variant

VALIDATION_SCHEMA = 3
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
    """The task metric of source and artifact on the same test set. `drop` is positive when the artifact is worse.

    `top1_agreement` (classifiers) is the share of test samples that both put into the same class. `interval` holds the
    drop with 95 % confidence (paired bootstrap), `variance` is that of one sample's drop, None where the metric is no
    mean. For classifiers, `lost` samples are right in the source and wrong in the artifact, `won` the other way round,
    `p_value` is McNemar's, and `classes` has the drift of each class, the one that suffers most first.
    """

    metric: str
    source: float
    artifact: float
    drop: float
    samples: int
    top1_agreement: float | None
    min_top1_agreement: float | None
    interval: Interval | None = None
    variance: float | None = None
    lost: int | None = None
    won: int | None = None
    p_value: float | None = None
    classes: tuple[ClassDrift, ...] = ()

    @property
    def detectable(self) -> float | None:
        """The smallest drop that this test set shows with a power of 80 %."""
        return None if self.variance is None else detectable_drop(self.samples, self.variance)

    def decided(self, limit: float) -> bool:
        """Whether the interval lies on one side of the limit, so that another test set would hardly judge otherwise."""
        return self.interval is None or self.interval.high <= limit or self.interval.low > limit

    def needed(self, limit: float) -> int | None:
        """How many samples would decide, were the drop what it was measured as."""
        return None if self.variance is None else samples_to_decide(limit, self.drop, self.variance, self.samples)

    @property
    def passed(self) -> bool:
        """Whether the agreement keeps within its tolerance; drift itself is judged by a budget."""
        agreement, limit = self.top1_agreement, self.min_top1_agreement
        return agreement is None or limit is None or agreement >= limit


@dataclass(frozen=True)
class Validation:
    """Golden samples compared output by output; the drift where the test set is at hand.

    `device` says on whose emulated core the artifact ran; `against_host` then compares with what it computes on this
    host. `stress` compares on synthetic inputs, one a name in `stress_cases`, and `batches` on the golden samples in
    batches, each output once for each size.
    """

    model: str
    kind: str
    target: str
    precision: str
    artifact_sha256: str
    runtime: str
    comparisons: tuple[Comparison, ...]
    drift: Drift | None
    device: str | None = None
    against_host: tuple[Comparison, ...] = ()
    stress: tuple[Comparison, ...] = ()
    stress_cases: tuple[str, ...] = ()
    batches: tuple[Comparison, ...] = ()
    tag: str = ""
    executor: str = ""
    schema_version: int = VALIDATION_SCHEMA

    @property
    def place(self) -> str:
        """Where it ran, for people: a device's name, and the executor or the runtime where they are not the usual."""
        device = self.device or HOST
        if self.executor:
            return f"{device} by {self.executor}"
        return f"{device} in {self.runtime}" if device == HOST else device

    @property
    def variant(self) -> Variant:
        """Target and precision in one, marked where a recipe made it."""
        return Variant(self.target, self.precision, self.tag)

    @property
    def passed(self) -> bool:
        """Whether every figure keeps within its tolerance."""
        compared = (*self.comparisons, *self.against_host, *self.stress, *self.batches)
        return all(item.passed for item in compared) and (self.drift is None or self.drift.passed)

    @property
    def failures(self) -> tuple[str, ...]:
        """One clause for each thing that is out of tolerance."""
        found = [clause for item in self.comparisons for clause in item.failures]
        found += [f"against this host: {clause}" for item in self.against_host for clause in item.failures]
        found += [f"on {self.stress_case(item)}: {clause}" for item in self.stress for clause in item.failures]
        found += [clause for item in self.batches for clause in item.failures]
        if self.drift is not None and not self.drift.passed:
            agreement, limit = (
                format_figure(value) for value in (self.drift.top1_agreement, self.drift.min_top1_agreement)
            )
            found.append(f"top1_agreement {agreement} on {self.drift.samples} test samples is outside {limit}")
        return tuple(found)

    def stress_case(self, comparison: Comparison) -> str:
        """The hard input that an output is furthest away on."""
        return "stress inputs" if comparison.worst_sample is None else self.stress_cases[comparison.worst_sample]

    def worst(self, figure: str) -> float | None:
        """The largest value of a figure over the outputs, or None where there is none."""
        values = [value for item in self.comparisons if (value := item.value(figure)) is not None]
        return max(values) if values else None


def _drift(data: dict[str, Any]) -> Drift:
    interval = None if data["interval"] is None else Interval(**data["interval"])
    return Drift(**{**data, "interval": interval, "classes": tuple(ClassDrift(**item) for item in data["classes"])})


def load_validation(path: Path) -> Validation:
    """The validation in the file. Raises InputError when it is damaged or of another version."""
    return validation_from_dict(read_json(path, "validation result"), path)


def validation_from_dict(data: dict[str, Any], path: Path) -> Validation:
    """The inverse of `dataclasses.asdict` after a trip through JSON. Raises InputError that names the file."""
    keys = {field.name for field in fields(Validation)} | {"passed"}
    with decode_versioned(
        data, path, "a validation result", "validate again", keys=keys, version=VALIDATION_SCHEMA, older=_OLDER
    ) as given:
        made = {
            "comparisons": tuple(comparison_from_dict(item) for item in given["comparisons"]),
            "against_host": tuple(comparison_from_dict(item) for item in given.get("against_host", ())),
            "stress": tuple(comparison_from_dict(item) for item in given.get("stress", ())),
            "stress_cases": tuple(given.get("stress_cases", ())),
            "batches": tuple(comparison_from_dict(item) for item in given.get("batches", ())),
            "drift": None if given["drift"] is None else _drift(given["drift"]),
        }
        rest = {key: value for key, value in given.items() if key != "passed"}
        return Validation(**{**rest, **made})
