"""The diff stage: two models tensor by tensor on real samples, and the first tensor where the error leaps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.core.environment.atomic_files import write_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.layerwise_diff import LayerwiseDiff, diff_layers
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_pairing import pair_tensors
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.layer_errors import LAYERS_FILE, SOURCE, LayerErrors, to_dict
from edgekit.core.records.source import load_source
from edgekit.core.values.file_names import GOLDEN_FILE, SOURCE_FILE
from edgekit.sources._given_samples import read_arrays
from edgekit.stages.context import Context
from edgekit.stages.validation.compare import (
    artifact_of,
    call_worker,
    coarser_precision,
    inputs_of,
    model_ref,
    read_signature,
    run_model,
    source_ref,
    specs,
)
from edgekit.stages.validation.model_run_job import ModelRef, trace_model

SAMPLES = 16
"""So many samples are enough to see where an error comes from, and every tensor of them is kept."""


def source_beside(context: Context, text: str) -> ModelRef:
    """The source that an artifact was made from. Raises InputError when it is no artifact, or its source is gone."""
    artifact = artifact_of(Path(text))
    if artifact is None:
        raise InputError(f"{text} is no artifact, so that nothing tells what it was made from; name the two models")
    folder = artifact.folder.parent / "source"
    if not (folder / SOURCE_FILE).is_file():
        raise InputError(f"{text}: its source is not beside it, in {folder}; name the two models")
    return source_ref(context, folder)


def _golden(item: ModelRef) -> dict[str, Array] | None:
    """The golden inputs of an artifact or a source folder."""
    artifact = None if item.path is None else artifact_of(Path(item.path))
    if artifact is not None:
        return dict(artifact.golden().inputs)
    if item.folder is not None:
        return dict(samples.load(Path(item.folder, GOLDEN_FILE), "golden samples").inputs)
    return None


def _samples(operands: tuple[ModelRef, ModelRef], given: Path | None) -> dict[str, Array]:
    if given is not None:
        arrays = read_arrays(given)
        arrays.pop("labels", None)
        return {"input": arrays.pop("")} if "" in arrays else arrays
    found = next((golden for item in operands if (golden := _golden(item)) is not None), None)
    if found is None:
        raise InputError("give real inputs with --samples: neither model has golden samples beside it")
    return found


def keep(artifact: Artifact, layers: LayerErrors) -> Path:
    """Puts the figures beside the artifact. Raises InputError or DiskFull."""
    path = artifact.folder / LAYERS_FILE
    write_json(path, to_dict(layers))
    return path


def layers_of_diff(
    context: Context, reference: str | None, actual: str, found: LayerwiseDiff
) -> tuple[Artifact, LayerErrors] | None:
    """What a diff on golden samples found, to be kept: where its second operand is an artifact of the project, and its
    first one the source that it was made from, or the float32 artifact of the same model. None where they are not."""
    artifact = artifact_of(Path(actual))
    if artifact is None or not artifact.folder.resolve().is_relative_to(context.project.build.resolve()):
        return None
    known = _reference(artifact, Path(reference) if reference else artifact.folder.parent / SOURCE)
    if known is None:
        return None
    manifest = artifact.manifest
    return artifact, LayerErrors(
        manifest.model,
        manifest.source["kind"],
        manifest.target,
        manifest.precision,
        manifest.sha256,
        *known,
        min(SAMPLES, artifact.golden().count),
        found.tensors,
        found.only_reference,
        found.only_actual,
        manifest.variant.tag,
    )


def _reference(artifact: Artifact, path: Path) -> tuple[str, str] | None:
    """What the reference is called, and its sha256."""
    manifest, beside = artifact.manifest, artifact.folder.resolve().parent
    if path.resolve() == beside / SOURCE:
        sha256 = load_source(path).sha256
        return (SOURCE, sha256) if sha256 == manifest.source.get("sha256") else None
    other = artifact_of(path)
    if other is None or other.folder.resolve().parent != beside or other.folder.resolve() == artifact.folder.resolve():
        return None
    return (str(other.manifest.variant), other.manifest.sha256) if other.manifest.precision == "float32" else None


def layers_one(context: Context, artifact: Artifact) -> LayerErrors:
    """Compares an artifact with its source layer by layer, and writes its layers.json. Raises what `diff` raises."""
    text = str(artifact.folder)
    made = layers_of_diff(context, None, text, diff(context, None, text, None))
    if made is None:
        raise InputError(f"{text}: the source beside it is not the one that it was made from; run: edgekit export")
    keep(artifact, made[1])
    return made[1]


def summary(layers: LayerErrors) -> str:
    """The result in a few words."""
    if layers.first is not None:
        return f"the error leaps at {layers.first.reference}"
    return f"{len(layers.tensors)} layers, and the error leaps nowhere"


def diff(
    context: Context,
    reference: str | None,
    actual: str,
    given: Path | None,
    forced: Mapping[str, str] | None = None,
    count: int = SAMPLES,
) -> LayerwiseDiff:
    """Compares what two models compute inside, on the first `count` samples; the first is the reference.

    Without a reference it is the source that the artifact was made from. Inputs are paired as `compare` does. Raises
    InputError (a format that does not show its inside, samples that do not fit), MissingDependency, StepError.
    """
    second = model_ref(context, actual)
    first = source_beside(context, actual) if reference is None else model_ref(context, reference)
    arrays = {name: array[:count] for name, array in _samples((first, second), given).items()}
    signatures = [read_signature(context, item, arrays) for item in (first, second)]
    inputs = inputs_of((first, second), signatures, arrays, forced or {}, str(given) if given else "the samples")
    chosen = ((first, inputs.first), (second, inputs.second))
    traces = [call_worker(context, trace_model, item, arrays, "trace") for item, arrays in chosen]
    results = run_model(context, first, inputs.first), run_model(context, second, inputs.second)
    outputs, _, _ = pair_tensors(specs(results[0]), specs(results[1]), forced or {})
    for side, results_of_side in zip(traces, results, strict=True):
        for name, array in results_of_side.items():  # a source calls its outputs otherwise inside
            side.setdefault(name, array)
    pairs = [(item.first.name, item.second.name) for item in outputs]
    return diff_layers(traces[0], traces[1], coarser_precision(context, (first, second)), pairs)
