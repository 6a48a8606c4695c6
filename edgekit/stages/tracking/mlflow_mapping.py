"""Maps the rows of a report to runs of MLflow: tags, parameters, metrics and files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from edgekit.core.environment.atomic_files import to_json
from edgekit.core.escape import mlflow_name
from edgekit.core.records.layer_errors import LAYERS_FILE
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.report import ReportRow
from edgekit.core.records.source import SourceModel
from edgekit.core.records.validation import Drift, Validation
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE, SOURCE_FILE
from edgekit.stages.tracking.settings import Point, TrackedRun

# The folder of a run's files; they are named as in build/, so that `edgekit validate` accepts the downloaded folder.
FOLDER = "artifact"
# The records beside an artifact that are logged with it, as glob patterns.
_JSON_FILES = ("validation*.json", "bench-*.json", LAYERS_FILE, "recipe.json", "sbom.cdx.json")
# For each error metric, the function that picks the worst output.
_WORST: Mapping[str, Callable[[Iterable[float]], float]] = {
    "max_abs_error": max,
    "mean_abs_error": max,
    "rmse": max,
    "sqnr_db": min,
    "cosine": min,
    "top1_agreement": min,
}
# The longest value of a parameter that servers of all MLflow versions accept, in characters.
_MAX_VALUE_CHARS = 500
# The entries of a training record that are results of the training, not options of it.
_TRAINING_RESULTS = ("seconds", "weights_sha256")


def source_run(model: str, kind: str, source: SourceModel | None, row: ReportRow) -> TrackedRun:
    """Build the run of a source model, which is the parent of the runs of its artifacts.

    Args:
        model: The name of the model.
        kind: The kind of the source model, such as `keras`.
        source: The source model; None if it is missing, then the manifest of an artifact is used.
        row: The row of one of its artifacts.

    Returns:
        The content of the run.
    """
    summary = row.artifact.manifest.source
    tags = {"model": model, "framework": kind, "edgekit.level": "model"}
    tags |= {key: str(summary[key]) for key in ("task", "metric", "sha256") if summary.get(key) is not None}
    metrics = {"parameters": summary.get("parameters"), "size_bytes": summary.get("size_bytes")}
    if summary.get("metric"):
        metrics[mlflow_name(summary["metric"])] = summary.get("metric_value")
    params = {"model": model, "framework": kind, "task": summary.get("task")}
    if source is None:
        return TrackedRun(f"{model}/{kind}", tags, _params(params), tuple(_points(metrics)))
    metrics["training_seconds"] = source.training.get("seconds")
    params |= {mlflow_name(key): value for key, value in source.training.items() if key not in _TRAINING_RESULTS}
    params |= {mlflow_name("data", key): value for key, value in source.data.items()}
    params |= {mlflow_name("version", key): value for key, value in source.versions.items()}
    return TrackedRun(
        f"{model}/{kind}",
        tags,
        _params(params),
        (*_points(metrics), *_epoch_points(source.history)),
        (row.artifact.folder.parent / "source" / SOURCE_FILE,),
        data=(str(source.data["name"]), str(source.data["sha256"])) if {"name", "sha256"} <= set(source.data) else None,
    )


def _epoch_points(history: Mapping[str, list[float]]) -> Iterator[Point]:
    """Yield the training history by epoch, `train/` for training and `validation/` for held-back samples."""
    for name, values in history.items():
        part = ("validation", name.removeprefix("val_")) if name.startswith("val_") else ("train", name)
        for epoch, value in enumerate(values, 1):
            if math.isfinite(value):
                yield Point(mlflow_name(*part), float(value), epoch)


def artifact_run(row: ReportRow, source: SourceModel | None, below: str) -> TrackedRun:
    """Build the run of an artifact. Results of an earlier model file are not included.

    Args:
        row: The row of the artifact.
        source: The source model, or None if it is missing.
        below: The digest of the parent run.

    Returns:
        The content of the run.
    """
    manifest, folder = row.artifact.manifest, row.artifact.folder
    measurements = [entry for entry in row.measurements if entry.artifact_sha256 == manifest.sha256]
    validation = row.validation if row.validation and row.validation.artifact_sha256 == manifest.sha256 else None
    route = " -> ".join(manifest.route)
    identity = {"model": manifest.model, "framework": manifest.source["kind"], "target": manifest.target}
    identity |= {"precision": manifest.precision, "variant": str(manifest.variant), "route": route}
    tags = {**identity, "sha256": manifest.sha256, "edgekit.level": "artifact"}
    if measurements:
        tags["devices"] = ", ".join(measurement.device for measurement in measurements)
    figures = {"size_bytes": manifest.size_bytes, **_validation_figures(validation), **_verdict_figures(row)}
    for measurement in measurements:
        figures |= _measurement_figures(measurement)
    patterns = (MANIFEST_FILE, *_JSON_FILES)
    return TrackedRun(
        row.artifact.label,
        tags,
        _params(identity | _provenance(row, source) | _conditions(validation, measurements)),
        tuple(_points(figures)),
        tuple(path for pattern in patterns for path in sorted(folder.glob(pattern))),
        tuple(path for path in (*row.artifact.paths, folder / GOLDEN_FILE) if path.is_file()),
        {CHECK_FILE: _verdicts_json(row)},
        below=below,
        folder=FOLDER,
    )


def _provenance(row: ReportRow, source: SourceModel | None) -> dict[str, Any]:
    """Return what the artifact was converted from and how."""
    manifest = row.artifact.manifest
    params = {"runtime": manifest.runtime, "source_sha256": manifest.source.get("sha256"), "seed": None}
    if source is not None:
        params["seed"] = source.training.get("seed")
    params |= {mlflow_name(f"calibration_{key}"): value for key, value in (manifest.calibration or {}).items()}
    params |= {mlflow_name("option", key): value for key, value in manifest.options.items()}
    return params | {mlflow_name("version", key): value for key, value in manifest.versions.items()}


def _conditions(validation: Validation | None, measurements: Iterable[Measurement]) -> dict[str, Any]:
    """Return the conditions of the results: numbers of samples, threads and hosts."""
    params: dict[str, Any] = {}
    if validation and validation.drift:
        params["test_samples"] = validation.drift.samples
    if validation and validation.comparisons:
        params["golden_samples"] = validation.comparisons[0].samples
    for entry in measurements:
        params |= {mlflow_name(entry.device, "threads"): entry.threads}
        params |= {mlflow_name(entry.device, "host"): entry.host}
    return params


def _validation_figures(validation: Validation | None) -> dict[str, float | None]:
    """Return each error metric of the worst output, then of each output if there are several, then the drift."""
    if validation is None:
        return {}
    figures: dict[str, float | None] = {"equivalent": float(validation.passed)}
    for name, worst in _WORST.items():
        values = {comparison.output: comparison.value(name) for comparison in validation.comparisons}
        measured = {output: value for output, value in values.items() if value is not None}
        figures[name] = worst(measured.values()) if measured else None
        if len(validation.comparisons) > 1:
            figures |= {mlflow_name("output", output, name): value for output, value in measured.items()}
    return figures | _drift_figures(validation.drift)


def _drift_figures(drift: Drift | None) -> dict[str, float | None]:
    if drift is None:
        return {}
    name = mlflow_name(drift.metric)
    figures = {name: drift.artifact, f"{name}_source": drift.source, f"{name}_drop": drift.drop}
    if drift.interval is not None:
        figures |= {f"{name}_drop_low": drift.interval.low, f"{name}_drop_high": drift.interval.high}
    return {**figures, "top1_agreement_test": drift.top1_agreement, "drop_p_value": drift.p_value}


def _measurement_figures(entry: Measurement) -> dict[str, float | None]:
    """Return the values of a measurement, prefixed by the device, with the tier in the name of a latency."""
    figures: dict[str, float | None] = {
        f"latency_{tier}_ms": value for tier, value in entry.latency_ms.items() if tier != "host"
    }
    wall = {f"latency_host_{key}": value for key, value in asdict(entry.wall).items() if key not in ("count", "mad_ms")}
    figures |= {**wall, "load_ms": entry.load_ms, "first_inference_ms": entry.first_inference_ms}
    figures |= {"peak_memory_bytes": entry.host_peak_memory_bytes, "macs": entry.macs}
    if entry.emulated is not None:
        figures |= {
            "latency_emulated_low_ms": entry.emulated.low_ms,
            "latency_emulated_high_ms": entry.emulated.high_ms,
            "instructions": entry.emulated.counts.instructions,
            "peak_memory_emulated_bytes": entry.emulated.peak_memory_bytes,
        }
    for execution in entry.executions:
        figures |= {
            f"latency_{execution.tier}_low_ms": execution.low_ms,
            f"latency_{execution.tier}_high_ms": execution.high_ms,
            f"latency_{execution.tier}_p90_ms": None if execution.wall is None else execution.wall.p90_ms,
            f"latency_{execution.tier}_p99_ms": None if execution.wall is None else execution.wall.p99_ms,
            f"peak_memory_{execution.tier}_bytes": execution.peak_memory_bytes,
        }
    return {mlflow_name(entry.device, name): value for name, value in figures.items()}


def _verdict_figures(row: ReportRow) -> dict[str, float | None]:
    """Return 1 for each rule that passes and 0 for each that fails."""
    rules = {
        mlflow_name(verdict.device, f"check_{verdict.rule}")
        if verdict.device
        else mlflow_name("check", verdict.rule): verdict.passed
        for verdict in row.verdicts
    }
    return {"passed": float(row.passed), **{name: float(passed) for name, passed in rules.items()}}


def _verdicts_json(row: ReportRow) -> str:
    verdicts = [{**asdict(verdict), "sentence": verdict.sentence} for verdict in row.verdicts]
    return to_json({"passed": row.passed, "verdicts": verdicts})


def _points(figures: Mapping[str, Any]) -> Iterator[Point]:
    """Yield the finite values; MLflow does not accept an infinite SQNR."""
    for name, value in figures.items():
        if value is not None and math.isfinite(value):
            yield Point(name, float(value))


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _format_param(value) for name, value in values.items() if value is not None}


def _format_param(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 1] + "…"
