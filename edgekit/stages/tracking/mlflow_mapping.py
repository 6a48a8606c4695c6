"""From rows of a report to runs of MLflow: what is a tag, a parameter, a metric, a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from edgekit.core.environment.atomic_files import to_json
from edgekit.core.records.layer_errors import LAYERS_FILE
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.report import ReportRow
from edgekit.core.records.source import SourceModel
from edgekit.core.records.validation import Drift, Validation
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE, SOURCE_FILE
from edgekit.stages.tracking.settings import Point, TrackedRun, sanitize_name

FOLDER = "artifact"
"""Of a run; as it was in build/, so that `edgekit validate` takes it when it is downloaded."""
_JSON_FILES = ("validation*.json", "bench-*.json", LAYERS_FILE, "recipe.json", "sbom.cdx.json")
_WORST: Mapping[str, Callable[[Iterable[float]], float]] = {
    "max_abs_error": max,
    "mean_abs_error": max,
    "rmse": max,
    "sqnr_db": min,
    "cosine": min,
    "top1_agreement": min,
}
_LONGEST_VALUE = 500  # what servers of all versions take
_NO_OPTIONS = ("seconds", "weights_sha256")  # of a training: what came of it


def source_run(model: str, kind: str, source: SourceModel | None, row: ReportRow) -> TrackedRun:
    """The run of a model in its framework, above those of its artifacts; `row` is one of these.

    Without the source itself it has what the artifact's manifest says of it.
    """
    told = row.artifact.manifest.source
    tags = {"model": model, "framework": kind, "edgekit.level": "model"}
    tags |= {key: str(told[key]) for key in ("task", "metric", "sha256") if told.get(key) is not None}
    metrics = {"parameters": told.get("parameters"), "size_bytes": told.get("size_bytes")}
    if told.get("metric"):
        metrics[sanitize_name(told["metric"])] = told.get("metric_value")
    params = {"model": model, "framework": kind, "task": told.get("task")}
    if source is None:
        return TrackedRun(f"{model}/{kind}", tags, _params(params), tuple(_points(metrics)))
    metrics["training_seconds"] = source.training.get("seconds")
    params |= {sanitize_name(key): value for key, value in source.training.items() if key not in _NO_OPTIONS}
    params |= {sanitize_name("data", key): value for key, value in source.data.items()}
    params |= {sanitize_name("version", key): value for key, value in source.versions.items()}
    return TrackedRun(
        f"{model}/{kind}",
        tags,
        _params(params),
        (*_points(metrics), *_course(source.history)),
        (row.artifact.folder.parent / "source" / SOURCE_FILE,),
        data=(str(source.data["name"]), str(source.data["sha256"])) if {"name", "sha256"} <= set(source.data) else None,
    )


def _course(history: Mapping[str, list[float]]) -> Iterator[Point]:
    """The training epoch by epoch: what was seen in training, and on the samples that were held back from it."""
    for name, values in history.items():
        part = ("validation", name.removeprefix("val_")) if name.startswith("val_") else ("train", name)
        for epoch, value in enumerate(values, 1):
            if math.isfinite(value):
                yield Point(sanitize_name(*part), float(value), epoch)


def artifact_run(row: ReportRow, source: SourceModel | None, below: str) -> TrackedRun:
    """The run of one artifact, below the one with the digest `below`.

    Results of an earlier model file are left out: they are no figures of this one.
    """
    manifest, folder = row.artifact.manifest, row.artifact.folder
    measured = [item for item in row.measurements if item.artifact_sha256 == manifest.sha256]
    validation = row.validation if row.validation and row.validation.artifact_sha256 == manifest.sha256 else None
    route = " -> ".join(manifest.route)
    own = {"model": manifest.model, "framework": manifest.source["kind"], "target": manifest.target}
    own |= {"precision": manifest.precision, "variant": str(manifest.variant), "route": route}
    tags = {**own, "sha256": manifest.sha256, "edgekit.level": "artifact"}
    if measured:
        tags["devices"] = ", ".join(item.device for item in measured)
    figures = {"size_bytes": manifest.size_bytes, **_validated(validation), **_checked(row)}
    for item in measured:
        figures |= _measured(item)
    patterns = (MANIFEST_FILE, *_JSON_FILES)
    return TrackedRun(
        row.artifact.label,
        tags,
        _params(own | _origin(row, source) | _conditions(validation, measured)),
        tuple(_points(figures)),
        tuple(path for pattern in patterns for path in sorted(folder.glob(pattern))),
        tuple(path for path in (*row.artifact.paths, folder / GOLDEN_FILE) if path.is_file()),
        {CHECK_FILE: _verdicts(row)},
        below=below,
        folder=FOLDER,
    )


def _origin(row: ReportRow, source: SourceModel | None) -> dict[str, Any]:
    """How the artifact came to be."""
    manifest = row.artifact.manifest
    found = {"runtime": manifest.runtime, "source_sha256": manifest.source.get("sha256"), "seed": None}
    if source is not None:
        found["seed"] = source.training.get("seed")
    found |= {f"calibration_{key}": value for key, value in (manifest.calibration or {}).items()}
    found |= {sanitize_name("option", key): value for key, value in manifest.options.items()}
    return found | {sanitize_name("version", key): value for key, value in manifest.versions.items()}


def _conditions(validation: Validation | None, measured: Iterable[Measurement]) -> dict[str, Any]:
    """What the figures were taken on."""
    found: dict[str, Any] = {}
    if validation and validation.drift:
        found["test_samples"] = validation.drift.samples
    if validation and validation.comparisons:
        found["golden_samples"] = validation.comparisons[0].samples
    for item in measured:
        found |= {sanitize_name(item.device, "threads"): item.threads, sanitize_name(item.device, "host"): item.host}
    return found


def _validated(validation: Validation | None) -> dict[str, float | None]:
    """Each figure by its worst output, and by output where there are several; then what it costs at the task."""
    if validation is None:
        return {}
    found: dict[str, float | None] = {"equivalent": float(validation.passed)}
    for name, worst in _WORST.items():
        values = {item.output: item.value(name) for item in validation.comparisons}
        known = {output: value for output, value in values.items() if value is not None}
        found[name] = worst(known.values()) if known else None
        if len(validation.comparisons) > 1:
            found |= {sanitize_name("output", output, name): value for output, value in known.items()}
    return found | _drifted(validation.drift)


def _drifted(drift: Drift | None) -> dict[str, float | None]:
    if drift is None:
        return {}
    name = sanitize_name(drift.metric)
    found = {name: drift.artifact, f"{name}_source": drift.source, f"{name}_drop": drift.drop}
    if drift.interval is not None:
        found |= {f"{name}_drop_low": drift.interval.low, f"{name}_drop_high": drift.interval.high}
    return {**found, "top1_agreement_test": drift.top1_agreement, "drop_p_value": drift.p_value}


def _measured(item: Measurement) -> dict[str, float | None]:
    """Under the device's name, with the tier in the figure's."""
    found: dict[str, float | None] = {
        f"latency_{tier}_ms": value for tier, value in item.latency_ms.items() if tier != "host"
    }
    wall = {f"latency_host_{key}": value for key, value in asdict(item.wall).items() if key not in ("count", "mad_ms")}
    found |= {**wall, "load_ms": item.load_ms, "first_inference_ms": item.first_inference_ms}
    found |= {"peak_memory_bytes": item.host_peak_memory_bytes, "macs": item.macs}
    if item.emulated is not None:
        found |= {"latency_emulated_low_ms": item.emulated.low_ms, "latency_emulated_high_ms": item.emulated.high_ms}
        found |= {
            "instructions": item.emulated.counts.instructions,
            "peak_memory_emulated_bytes": item.emulated.peak_memory_bytes,
        }
    return {sanitize_name(item.device, name): value for name, value in found.items()}


def _checked(row: ReportRow) -> dict[str, float | None]:
    """1 for what keeps within its limit, 0 for what does not."""
    rules = {
        sanitize_name(verdict.device, f"check_{verdict.rule}")
        if verdict.device
        else sanitize_name("check", verdict.rule): verdict.passed
        for verdict in row.verdicts
    }
    return {"passed": float(row.passed), **{name: float(passed) for name, passed in rules.items()}}


def _verdicts(row: ReportRow) -> str:
    verdicts = [{**asdict(verdict), "sentence": verdict.sentence} for verdict in row.verdicts]
    return to_json({"passed": row.passed, "verdicts": verdicts})


def _points(figures: Mapping[str, Any]) -> Iterator[Point]:
    """What is a number; an infinite SQNR is none."""
    for name, value in figures.items():
        if value is not None and math.isfinite(value):
            yield Point(name, float(value))


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
