"""A project whose build folder holds every record, written by the code that writes them; no framework is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from _helpers import sample_reports
from edgekit.core.environment.atomic_files import sha256_file, write_json
from edgekit.core.numerics.output_comparison import Comparison, Figure
from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.numerics.statistics import ClassDrift, Interval
from edgekit.core.records.artifact import Manifest, describe_files, write_manifest
from edgekit.core.records.emulated_measurement import EmulationRecord, emulation_file
from edgekit.core.records.layer_errors import LAYERS_FILE, SOURCE, to_dict
from edgekit.core.records.measurement import Execution, Measurement, bench_file
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.runtime_versions import runtime_versions_file
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.records.validation import VALIDATION_FILE, Drift, Validation, validation_file
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import Quantization, Signature, TensorSpec

DEVICE = "raspberry-pi-4b"
ARTIFACT = Path("build/net/keras/tflite-int8")
SOURCE_FOLDER = ARTIFACT.parent / "source"
SIGNATURE = Signature(
    (TensorSpec("x", ("batch", 2), "float32", "NHWC"),),
    (TensorSpec("y", ("batch", 3), "int8", None, Quantization((0.5,), (3,))),),
)
SOURCE_SIGNATURE = Signature(SIGNATURE.inputs, (TensorSpec("y", ("batch", 3), "float32"),))


def make_project(root: Path) -> Path:
    """Write one source and one artifact with all results; return the artifact's folder."""
    samples = Samples({"x": np.ones((4, 2), np.float32)}, {"y": np.eye(4, 3, dtype=np.float32)})
    source = _make_source(root / SOURCE_FOLDER, samples)
    folder = root / ARTIFACT
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(b"the model")
    samples.save(folder / GOLDEN_FILE)
    files = describe_files(folder, ("model.tflite",))
    manifest = Manifest(
        "net", "tflite", "int8", "litert", "model.tflite", files[0].sha256, files[0].size, SIGNATURE,
        {
            "kind": "keras", "sha256": source.sha256, "task": "classification", "metric": "accuracy", "notes": ["n"],
            "size_bytes": 99, "parameters": 3, "metric_value": 0.9,
            "rounding": {"y": asdict(Rounding(1e-7, 1e-8, 1.0, 4))},
        },
        ("keras", "tflite"), {"opset": 17}, {"samples": 4, "sha256": samples.digest()},
        {"samples": 4, "sha256": samples.digest()}, {"tensorflow": "2.21"}, ("a note",), False, "no seed", files,
    )  # fmt: skip
    write_manifest(folder, manifest)
    save_validation(folder, validation(manifest))
    save_validation(
        folder, replace(validation(manifest), device=DEVICE, drift=None, stress=(), against_host=(comparison(),))
    )
    save_measurement(folder, measurement(manifest, DEVICE))
    save_measurement(folder, replace(measurement(manifest, "host"), emulated=None, executions=()))
    emulated = EmulationRecord(manifest.sha256, DEVICE, sample_reports.EMULATED)
    write_json(folder / emulation_file(DEVICE), asdict(emulated))
    versions = replace(sample_reports.VERSIONS, artifact_sha256=manifest.sha256, device=DEVICE)
    write_json(folder / runtime_versions_file(DEVICE), asdict(versions))
    layers = replace(
        sample_reports.by_layer(model="net"), artifact_sha256=manifest.sha256, reference=SOURCE,
        reference_sha256=source.sha256,
    )  # fmt: skip
    write_json(folder / LAYERS_FILE, to_dict(layers))
    return folder


def _make_source(folder: Path, samples: Samples) -> SourceModel:
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(b"the source")
    samples.save(folder / GOLDEN_FILE)
    source = SourceModel(
        "net", "keras", "model.keras", sha256_file(folder / "model.keras"), SOURCE_SIGNATURE, "classification",
        "accuracy", 0.97, 1234, None, None, {"time": 3}, ("a note",), {"name": "mnist", "train": 10}, {"epochs": 1},
        {"loss": [1.0, 0.5]}, {"y": Rounding(1e-7, 1e-8, 1.0, 4)}, {"keras": "3.15"},
    )  # fmt: skip
    source.save(folder)
    return source


def comparison() -> Comparison:
    figures = (Figure("max_abs_error", 0.01, None), Figure("sqnr_db", 31.4, 20.0), Figure("cosine", 0.999, 0.99))
    return Comparison("y", 4, 1, figures)


def validation(manifest: Manifest) -> Validation:
    drift = Drift(
        "accuracy", 0.97, 0.96, 0.01, 1000, 0.99, 0.98, Interval(0.001, 0.02), 0.02, 12, 2, 0.01,
        (ClassDrift(0, 500, 0.97, 0.96), ClassDrift(1, 500, 0.97, 0.96)),
    )  # fmt: skip
    return Validation(
        "net", "keras", "tflite", "int8", manifest.sha256, "litert", (comparison(),), drift,
        stress=(comparison(),), stress_cases=("zeros", "ones", "large", "noise"), batches=(comparison(),),
    )  # fmt: skip


def measurement(manifest: Manifest, device: str) -> Measurement:
    execution = Execution("board", "device", "a board", 3.2, 3.0, 3.4, 4, sample_reports.WALL, 1.0, 1000, ("a note",))
    costs = (OperatorCost("CONV_2D", "y", 1.0, 2.5e6, 12_300.0),)
    emulated = replace(sample_reports.EMULATED, operators=costs)
    return Measurement(
        "net", "keras", "tflite", "int8", manifest.sha256, device, "litert", manifest.size_bytes, 9,
        {"host": 1.2, "analytic": 0.0125, "emulated": 3.21}, 12.5, 1.9, 20, sample_reports.WALL, sample_reports.WALL,
        4, (0, 1), "a host", 5_000_000, 4_000_000, 569, 1000, ("a note",), emulated, "",
        {"CONV_2D": 1}, costs, (execution,),
    )  # fmt: skip


def save_validation(folder: Path, record: Validation) -> None:
    name = VALIDATION_FILE if record.device is None else validation_file(record.device)
    write_json(folder / name, {**asdict(record), "passed": record.passed})


def save_measurement(folder: Path, record: Measurement) -> None:
    write_json(folder / bench_file(record.device), asdict(record))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place; NaN and infinity are written as Python's parser reads them."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
