"""Assertions about models and artifacts. Each raises AssertionError with the figures, or an EdgekitError when it cannot
tell: a file that is damaged, a package that is missing, a runtime that crashed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.testing import _session

if TYPE_CHECKING:
    from edgekit.core.numerics.metrics import Array
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.validation import Validation
    from edgekit.stages.validation.compare import Equivalence


def _artifact(model: str | Path) -> Artifact:
    from edgekit.core.records.artifact import load_artifact

    path = Path(model)
    return load_artifact(path if path.is_dir() else path.parent)


def assert_equivalent(
    artifact: str | Path,
    source: str | Path | None = None,
    samples: str | Path | Mapping[str, Array] | None = None,
    *,
    precision: str | None = None,
) -> None:
    """That the artifact computes what its source computes, within the tolerances of its precision.

    Without a source, an artifact's folder is judged by its own golden samples. With one (any model file, or
    FILE.py:FUNCTION) both are run on `samples`: an npz or npy file, or arrays by input name, shape (N, ...). Outputs
    that are alike for all samples are no evidence, and fail.
    """
    __tracebackhide__ = True
    if source is None:
        validation = _validated(artifact)
        assert validation.passed, _lines(f"{artifact} is not equivalent to its source", validation.failures)
        return
    if samples is None:
        raise TypeError("assert_equivalent with a source needs samples")
    found = _compared(source, artifact, samples, precision=precision)
    failures = [clause for item in found.comparisons for clause in item.failures]
    missing = [f"not compared: {name}" for name in found.unpaired]
    assert found.verdict == "equal", _lines(f"{artifact} and {source}: {found.verdict}", [*failures, *missing])


def assert_accuracy_drift(
    artifact: str | Path,
    max_drop: float = 0.02,
    *,
    source: str | Path | None = None,
    samples: str | Path | Mapping[str, Array] | None = None,
    labels: str | Path | Array | None = None,
) -> None:
    """That the artifact's task metric is at most `max_drop` worse than its source's (0.02: two points of accuracy).

    Without a source, the test set that stands beside the artifact judges (`edgekit train`, or `--sample` with labels);
    with one, both classify `samples` with `labels`.
    """
    __tracebackhide__ = True
    if source is None:
        drift = _validated(artifact).drift
        if drift is None:
            raise AssertionError(
                f"{artifact}: there is no test set beside this artifact; give source, samples and labels"
            )
        before, after, drop, count, metric = drift.source, drift.artifact, drift.drop, drift.samples, drift.metric
    else:
        if samples is None or labels is None:
            raise TypeError("assert_accuracy_drift with a source needs samples and labels")
        task = _compared(source, artifact, samples, labels=labels).task
        assert task is not None  # it was given labels
        before, after, metric, count = task.first_accuracy, task.second_accuracy, "accuracy", None
        drop = before - after
    of = "" if count is None else f" on {count} samples"
    assert drop <= max_drop, (
        f"{artifact}: {metric} {after:.4f} where the source has {before:.4f}{of}:"
        f" a drop of {drop:.4f}, allowed {max_drop}"
    )


def assert_size_budget(model: str | Path, budget: str | int) -> None:
    """That a model file, or an artifact's model file, has at most so many bytes: 512000, "500 KB", "1.5 MB"."""
    __tracebackhide__ = True
    from edgekit.core.environment.atomic_files import size_of
    from edgekit.core.units import format_bytes, parse_bytes
    from edgekit.core.values.file_names import MANIFEST_FILE

    path = Path(model)
    if (path / MANIFEST_FILE).is_file():
        path = _artifact(path).verified_path()
    limit = budget if isinstance(budget, int) else parse_bytes(budget)
    size = size_of(path)
    assert size <= limit, f"{model}: {format_bytes(size)} ({size} bytes), allowed {format_bytes(limit)} ({limit} bytes)"


def assert_latency_budget(
    artifact: str | Path, budget: str | float, *, device: str | None = None, tier: str = "host"
) -> None:
    """That the median latency of one inference is at most `budget`: milliseconds, or a text such as "5 ms".

    `device` names a device profile; `tier` is which of its figures is meant (host, analytic). The figure of tier host
    is one of this machine: mark such a test `edgekit_slow`, and give it room.
    """
    __tracebackhide__ = True
    from edgekit.core.units import parse_seconds

    limit = float(budget) if isinstance(budget, (int, float)) else 1000 * parse_seconds(budget)
    figures = _benched(artifact, device)
    if tier not in figures:
        raise AssertionError(
            f"{artifact}: no figure of tier {tier} on {device or 'host'}; there are: {', '.join(figures)}"
        )
    found = figures[tier]
    assert found <= limit, f"{artifact}: {found:.3f} ms ({tier}) on {device or 'host'}, allowed {limit:g} ms"


def _validated(artifact: str | Path) -> Validation:
    from edgekit.stages.validation.validate import validate_one

    return validate_one(_session.context(), _artifact(artifact))


def _benched(artifact: str | Path, device: str | None) -> Mapping[str, float]:
    from edgekit.devices.profile import load_profile
    from edgekit.stages.benchmark.bench import HOST, BenchOptions, bench_one

    context = _session.context()
    profile = None if device is None else load_profile(context.project.device_file(device))
    options = BenchOptions(min_duration_s=0.3)
    return bench_one(context, _artifact(artifact), device or HOST, profile, options).latency_ms


def _compared(
    source: str | Path,
    artifact: str | Path,
    samples: str | Path | Mapping[str, Array],
    *,
    labels: str | Path | Array | None = None,
    precision: str | None = None,
) -> Equivalence:
    from edgekit.stages.validation.compare import compare

    given = Path(samples) if isinstance(samples, (str, Path)) else samples
    classes = Path(labels) if isinstance(labels, (str, Path)) else labels
    return compare(_session.context(), (str(source), str(artifact)), given, labels=classes, precision=precision)


def _lines(head: str, clauses: list[str] | tuple[str, ...]) -> str:
    return "\n  ".join([f"{head}:", *clauses])
