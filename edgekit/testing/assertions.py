"""Assertions about models and artifacts.

Each raises AssertionError with the measured figures, or an EdgekitError if it cannot decide: a file is damaged, a
package is missing, or a runtime crashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.testing import _session

if TYPE_CHECKING:
    from edgekit.core.numerics.metrics import Array
    from edgekit.core.records.validation import Validation


def assert_equivalent(
    artifact: str | Path,
    source: str | Path | None = None,
    samples: str | Path | Mapping[str, Array] | None = None,
    *,
    precision: str | None = None,
) -> None:
    """Assert that an artifact computes the same as its source, within the tolerances of its precision.

    Outputs that are the same for all samples are no evidence of equivalence and fail.

    Args:
        artifact: Folder of an artifact; with a source also any model file.
        source: Any model file, or code as `FILE.py:FUNCTION`, that the artifact is compared with. Without a source the
            artifact is compared with its own golden samples.
        samples: Inputs for the comparison with a source: an npz or npy file, or arrays `(N, ...)` by input name.
        precision: Precision whose tolerances apply in a comparison with a source.

    Raises:
        AssertionError: The outputs differ by more than the tolerances.
        TypeError: A source is given without samples.
        EdgekitError: The models could not be compared.
    """
    __tracebackhide__ = True
    if source is None:
        validation = _validate(artifact)
        assert validation.passed, _list_below(f"{artifact} is not equivalent to its source", validation.failures)
        return
    if samples is None:
        raise TypeError("assert_equivalent requires samples when a source is given")
    equivalence = _session.session().compare(source, artifact, samples=samples, precision=precision)
    failures = [clause for comparison in equivalence.comparisons for clause in comparison.failures]
    missing = [f"not compared: {name}" for name in equivalence.unpaired]
    assert equivalence.verdict == "equal", _list_below(
        f"{artifact} and {source}: {equivalence.verdict}", [*failures, *missing]
    )


def assert_accuracy_drift(
    artifact: str | Path,
    max_drop: float = 0.02,
    *,
    source: str | Path | None = None,
    samples: str | Path | Mapping[str, Array] | None = None,
    labels: str | Path | Array | None = None,
) -> None:
    """Assert that an artifact's task metric is at most `max_drop` worse than that of its source.

    Args:
        artifact: Folder of an artifact; with a source also any model file.
        max_drop: Largest allowed drop of the metric; 0.02 is two percentage points of accuracy.
        source: Any model file, or code as `FILE.py:FUNCTION`, whose accuracy is the reference. Without a source the
            metric is computed on the test set stored with the artifact's source (by `edgekit train`, or by
            `edgekit export --sample` with labels).
        samples: Inputs for the comparison with a source: an npz or npy file, or arrays `(N, ...)` by input name.
        labels: Class indices `(N,)` of the samples: a file or an array.

    Raises:
        AssertionError: The metric dropped by more than `max_drop`, or the artifact has no test set.
        TypeError: A source is given without samples and labels.
        EdgekitError: The models could not be run.
    """
    __tracebackhide__ = True
    if source is None:
        drift = _validate(artifact).drift
        if drift is None:
            raise AssertionError(f"{artifact}: this artifact has no test set; pass source, samples and labels")
        before, after, drop, count, metric = drift.source, drift.artifact, drift.drop, drift.samples, drift.metric
    else:
        if samples is None or labels is None:
            raise TypeError("assert_accuracy_drift requires samples and labels when a source is given")
        task = _session.session().compare(source, artifact, samples=samples, labels=labels).task
        assert task is not None  # computed whenever labels are given
        before, after, metric, count = task.first_accuracy, task.second_accuracy, "accuracy", None
        drop = before - after
    sample_count = "" if count is None else f" on {count} samples"
    assert drop <= max_drop, (
        f"{artifact}: {metric} is {after:.4f}, but {before:.4f} in the source{sample_count}:"
        f" a drop of {drop:.4f}, allowed {max_drop}"
    )


def assert_size_budget(model: str | Path, budget: str | int) -> None:
    """Assert that a model file, or the model file of an artifact, is not larger than a budget.

    Args:
        model: A model file, or the folder of an artifact.
        budget: Largest allowed size: bytes, or text such as `500 KB` or `1.5 MB`.

    Raises:
        AssertionError: The file is larger.
        EdgekitError: The artifact is damaged, or the budget is not a size.
    """
    __tracebackhide__ = True
    from edgekit.api import load_artifact
    from edgekit.core.environment.atomic_files import size_of
    from edgekit.core.units import format_bytes, parse_bytes
    from edgekit.core.values.file_names import MANIFEST_FILE

    path = Path(model)
    if (path / MANIFEST_FILE).is_file():
        path = load_artifact(path).verified_path()
    limit = budget if isinstance(budget, int) else parse_bytes(budget)
    size = size_of(path)
    assert size <= limit, f"{model}: {format_bytes(size)} ({size} bytes), allowed {format_bytes(limit)} ({limit} bytes)"


def assert_latency_budget(
    artifact: str | Path, budget: str | float, *, device: str | None = None, tier: str = "host"
) -> None:
    """Assert that the median latency of one inference is at most a budget.

    A figure of the tier `host` is measured on this machine and varies: mark such a test `edgekit_slow`, and allow a
    margin.

    Args:
        artifact: Folder of an artifact.
        budget: Largest allowed latency: milliseconds, or text such as `5 ms`.
        device: Name of a device profile; None is this machine.
        tier: Tier of the figure: `host` or `analytic`.

    Raises:
        AssertionError: The latency is higher, or there is no figure of this tier.
        EdgekitError: The artifact could not be measured, or the device is unknown.
    """
    __tracebackhide__ = True
    from edgekit.core.units import parse_seconds

    limit = float(budget) if isinstance(budget, (int, float)) else 1000 * parse_seconds(budget)
    figures = _measure(artifact, device)
    if tier not in figures:
        raise AssertionError(
            f"{artifact}: no figure of tier {tier} on {device or 'host'}; available: {', '.join(figures)}"
        )
    latency_ms = figures[tier]
    assert latency_ms <= limit, f"{artifact}: {latency_ms:.3f} ms ({tier}) on {device or 'host'}, allowed {limit:g} ms"


def _validate(artifact: str | Path) -> Validation:
    from edgekit.api import load_artifact

    (validation,) = _session.session().validate(load_artifact(artifact))
    return validation


def _measure(artifact: str | Path, device: str | None) -> Mapping[str, float]:
    from edgekit.api import load_artifact

    devices = () if device is None else device
    (measurement,) = _session.session().bench(load_artifact(artifact), device=devices, min_duration_s=0.3)
    return measurement.latency_ms


def _list_below(head: str, clauses: list[str] | tuple[str, ...]) -> str:
    return "\n  ".join([f"{head}:", *clauses])
