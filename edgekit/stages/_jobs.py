"""What runs inside workers. Every function takes plain values and paths, and `emit` for events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.config.model import ModelSpec, TrainingSpec, load_model_spec
from edgekit.core import plugins
from edgekit.core.code import load_function
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Listener
from edgekit.core.files import sha256_file
from edgekit.core.metrics import TASK_METRICS, Array
from edgekit.core.requirements import Requirement, require, versions
from edgekit.core.samples import Samples
from edgekit.core.source import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE, SourceModel, load_source
from edgekit.core.specs import ModelDescription, Signature, TensorSpec
from edgekit.runtimes._base import Runtime
from edgekit.sources._base import Loaded, SourceKind
from edgekit.sources.bridges._base import Bridge
from edgekit.targets._base import Conversion, Converted, Target
from edgekit.training._base import Trainer
from edgekit.training.datasets.splits import Splits, digest

_LAYOUTS = {("HWC", "last"): "NHWC", ("HWC", "first"): "NCHW", ("TC", "last"): "NTC", ("TC", "first"): "NTC"}


def _signature(spec: ModelSpec, layout: str) -> Signature:
    """The model's signature in a framework's layout, the batch symbolic."""
    shape = spec.input.shape
    name = _LAYOUTS[(spec.input.layout, layout)] if spec.input.layout else None
    if name == "NCHW":
        shape = (shape[-1], *shape[:-1])
    return Signature(
        (TensorSpec(spec.input.name, ("batch", *shape), spec.input.dtype, name),),
        (TensorSpec(spec.output.name, ("batch", *spec.output.shape), "float32"),),
    )


def _in_layout(inputs: Array, signature: Signature) -> Array:
    if signature.inputs[0].layout == "NCHW":
        return np.ascontiguousarray(np.moveaxis(inputs, -1, 1))  # (N, H, W, C) -> (N, C, H, W)
    return inputs


def train(
    model_folder: str,
    kind: str,
    data: str | None,
    overrides: Mapping[str, Any],
    folder: str,
    step: str,
    *,
    emit: Listener,
) -> SourceModel:
    """Trains one framework's twin of a reference model and writes the whole source folder."""
    spec = load_model_spec(Path(model_folder))
    training = replace(spec.training, **overrides)
    trainer: Trainer = plugins.load("edgekit.training", kind, "TRAINER")
    source_kind: SourceKind = plugins.load("edgekit.sources", kind, "SOURCE")
    require(trainer.requires, f"training {kind} models")
    splits: Splits = load_function(Path(model_folder, "data.py"), "load")(data or spec.data.default, spec)
    signature = _signature(spec, source_kind.layout)
    code = Path(model_folder, trainer.code)
    fit = trainer.fit(
        load_function(code, "build"),
        training,
        _in_layout(splits.train_inputs, signature),
        splits.train_labels,
        Path(folder),
        step=step,
        emit=emit,
    )
    weights = Path(folder, fit.file)
    loaded = source_kind.load(weights, signature, code)
    value = _write_samples(spec, loaded, splits, Path(folder))
    parameters = loaded.parameters()
    source = SourceModel(
        name=Path(model_folder).name,
        kind=kind,
        file=fit.file,
        sha256=sha256_file(weights),
        signature=signature,
        task=spec.task,
        metric=spec.metric,
        metric_value=value,
        parameters=sum(array.size for array in parameters.values()),
        code=trainer.code,
        code_sha256=sha256_file(code),
        data={"name": splits.name, "sha256": splits.sha256, "licence": splits.licence, **_counts(splits)},
        training={**_training(training), "weights_sha256": digest(*parameters.values())},
        history=fit.history,
        versions=versions(trainer.requires),
    )
    source.save(Path(folder))
    return source


def _training(spec: TrainingSpec) -> dict[str, Any]:
    return {key: value for key, value in asdict(spec).items() if value is not None}


def _counts(splits: Splits) -> dict[str, int]:
    return {
        "train": len(splits.train_inputs),
        "calibration": len(splits.calibration_inputs),
        "golden": len(splits.golden_inputs),
        "test": len(splits.test_inputs),
    }


def _write_samples(spec: ModelSpec, loaded: Loaded, splits: Splits, folder: Path) -> float:
    """Calibration, golden and test samples with the source's own outputs; the task metric on the test set."""
    name = loaded.signature.inputs[0].name
    parts = {
        CALIBRATION_FILE: (splits.calibration_inputs, splits.calibration_labels),
        GOLDEN_FILE: (splits.golden_inputs, splits.golden_labels),
        TEST_FILE: (splits.test_inputs, splits.test_labels),
    }
    value = float("nan")
    for file, (array, labels) in parts.items():
        inputs = {name: _in_layout(array, loaded.signature)}
        outputs = loaded.run(inputs) if file != CALIBRATION_FILE else {}
        Samples(inputs, outputs, labels).save(folder / file)
        if file == TEST_FILE:
            value = TASK_METRICS[spec.metric].compute(outputs[spec.output.name], splits.test_labels)
    if not np.isfinite(value):
        raise StepFailed(f"the trained model's {spec.metric} is {value}: the training diverged")
    return value


_loaded: dict[tuple[str, str], Loaded] = {}


def _source(folder: Path, model_folder: Path, bridge: str | None) -> Loaded:
    """The source, over the bridge if there is one; loaded once a worker: a run exports many variants of it."""
    source = load_source(folder)
    key = (str(folder), source.sha256)
    if key not in _loaded:
        plugin: SourceKind | Bridge = (
            plugins.load("edgekit.sources.bridges", bridge, "BRIDGE")
            if bridge
            else plugins.load("edgekit.sources", source.kind, "SOURCE")
        )
        require(plugin.requires, f"loading {source.kind} models" + (f" by the bridge {bridge}" if bridge else ""))
        _loaded.clear()
        code = model_folder / source.code if source.code else None
        _loaded[key] = plugin.load(source.weights_path(folder), source.signature, code)
    return _loaded[key]


def convert(
    source_folder: str,
    model_folder: str,
    target: str,
    precision: str,
    calibration: Mapping[str, Array] | None,
    folder: str,
    bridge: str | None,
    *,
    emit: Listener,
) -> tuple[Converted, dict[str, str]]:
    """Converts the source into the folder; also the versions of the tools that did it."""
    plugin: Target = plugins.load("edgekit.targets", target, "TARGET")
    loaded = _source(Path(source_folder), Path(model_folder), bridge)
    converted = plugin.convert(loaded, Conversion(precision, Path(folder), calibration))
    used: tuple[Requirement, ...] = plugin.requires[loaded.kind]
    return converted, versions(used)


def infer(
    runtime: str, path: str, signature: Signature, inputs: Mapping[str, Array], threads: int, *, emit: Listener
) -> dict[str, Array]:
    """Real values in, real values out, in the artifact's runtime."""
    plugin: Runtime = plugins.load("edgekit.runtimes", runtime, "RUNTIME")
    return plugin.open(Path(path), threads=threads, signature=signature).infer(inputs)


def describe(target: str, path: str, *, emit: Listener) -> ModelDescription:
    """What is in the file."""
    plugin: Target = plugins.load("edgekit.targets", target, "TARGET")
    require(plugin.reads_with, f"reading {plugin.suffixes[0]} files")
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    return plugin.describe(Path(path))
