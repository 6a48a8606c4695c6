"""The diff stage: compares two models tensor by tensor on real samples, and finds the first divergence."""

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

# Enough to locate an error; every intermediate tensor of these samples is in memory at once.
SAMPLES = 16


def source_beside(context: Context, text: str) -> ModelRef:
    """Return the source that an artifact was exported from.

    Args:
        context: The project.
        text: The artifact's folder or model file.

    Raises:
        InputError: The text is not an artifact, or its source does not exist.
    """
    artifact = artifact_of(Path(text))
    if artifact is None:
        raise InputError(f"{text}: not an artifact, so its source is unknown; name both models")
    folder = artifact.folder.parent / "source"
    if not (folder / SOURCE_FILE).is_file():
        raise InputError(f"{text}: its source is not in {folder}; name both models")
    return source_ref(context, folder)


def _golden_inputs(model: ModelRef) -> dict[str, Array] | None:
    """Return the golden inputs of an artifact or a source folder, or None for any other model."""
    artifact = None if model.path is None else artifact_of(Path(model.path))
    if artifact is not None:
        return dict(artifact.golden().inputs)
    if model.folder is not None:
        return dict(samples.load(Path(model.folder, GOLDEN_FILE), "golden samples").inputs)
    return None


def _input_arrays(models: tuple[ModelRef, ModelRef], sample_file: Path | None) -> dict[str, Array]:
    """Return the samples of a file, or the golden inputs of the first model that has some."""
    if sample_file is not None:
        arrays = read_arrays(sample_file)
        arrays.pop("labels", None)
        return {"input": arrays.pop("")} if "" in arrays else arrays  # an npy file has one array without a name
    inputs = next((golden for model in models if (golden := _golden_inputs(model)) is not None), None)
    if inputs is None:
        raise InputError("neither model has golden samples; pass real inputs with --samples")
    return inputs


def keep(artifact: Artifact, layers: LayerErrors) -> Path:
    """Write the errors by layer next to an artifact.

    Args:
        artifact: The artifact.
        layers: The errors by layer.

    Returns:
        The path of the file.

    Raises:
        InputError: The folder cannot be written.
        DiskFull: There is no space left.
    """
    path = artifact.folder / LAYERS_FILE
    write_json(path, to_dict(layers))
    return path


def layers_of_diff(
    context: Context, reference: str | None, actual: str, layerwise_diff: LayerwiseDiff
) -> tuple[Artifact, LayerErrors] | None:
    """Return the record of a diff on golden samples, if its models are those of a record.

    Args:
        context: The project.
        reference: The first model; None for the artifact's source.
        actual: The second model.
        layerwise_diff: The result of the diff.

    Returns:
        The artifact and the record. None unless the second model is an artifact of the project, and the first one is
        the source that it was exported from or the float32 artifact of the same model.

    Raises:
        InputError: A manifest or the description of the source is damaged.
    """
    artifact = artifact_of(Path(actual))
    if artifact is None or not artifact.folder.resolve().is_relative_to(context.project.build.resolve()):
        return None
    reference_record = _reference_record(artifact, Path(reference) if reference else artifact.folder.parent / SOURCE)
    if reference_record is None:
        return None
    manifest = artifact.manifest
    return artifact, LayerErrors(
        manifest.model,
        manifest.source["kind"],
        manifest.target,
        manifest.precision,
        manifest.sha256,
        *reference_record,
        min(SAMPLES, artifact.golden().count),
        layerwise_diff.tensors,
        layerwise_diff.only_reference,
        layerwise_diff.only_actual,
        manifest.variant.tag,
    )


def _reference_record(artifact: Artifact, path: Path) -> tuple[str, str] | None:
    """Return the name and the sha256 of the reference, or None if it is not a reference of this artifact."""
    manifest, parent = artifact.manifest, artifact.folder.resolve().parent
    if path.resolve() == parent / SOURCE:
        sha256 = load_source(path).sha256
        return (SOURCE, sha256) if sha256 == manifest.source.get("sha256") else None
    reference = artifact_of(path)
    if reference is None:
        return None
    folder = reference.folder.resolve()
    if folder.parent != parent or folder == artifact.folder.resolve() or reference.manifest.precision != "float32":
        return None
    return str(reference.manifest.variant), reference.manifest.sha256


def layers_one(context: Context, artifact: Artifact) -> LayerErrors:
    """Compare an artifact with its source layer by layer and write its `layers.json`.

    Args:
        context: The project and the workers.
        artifact: The artifact.

    Raises:
        InputError: The artifact was not exported from the source next to it, or its format does not expose
            intermediates.
        MissingDependency: A package is not installed.
        StepError: A worker crashed.
    """
    text = str(artifact.folder)
    record = layers_of_diff(context, None, text, diff(context, None, text, None))
    if record is None:
        raise InputError(f"{text}: the artifact was not exported from the source next to it; run: edgekit export")
    _, layers = record
    keep(artifact, layers)
    return layers


def summary(layers: LayerErrors) -> str:
    """Return the result in a few words."""
    if layers.first is not None:
        return f"divergence at {layers.first.reference}"
    return f"no divergence in {len(layers.tensors)} layers"


def diff(
    context: Context,
    reference: str | None,
    actual: str,
    sample_file: Path | None,
    forced: Mapping[str, str] | None = None,
    count: int = SAMPLES,
) -> LayerwiseDiff:
    """Compare the intermediate tensors of two models.

    Args:
        context: The project and the workers.
        reference: The first model, which is the reference; None for the source of the artifact `actual`.
        actual: The second model.
        sample_file: A file with samples; None for golden samples.
        forced: Names of the second model by names of the first that are paired; others are paired automatically.
        count: The number of samples to use.

    Raises:
        InputError: A format does not expose its intermediates, or the samples do not match the inputs.
        MissingDependency: A package is not installed.
        StepError: A worker crashed.
    """
    second = model_ref(context, actual)
    first = source_beside(context, actual) if reference is None else model_ref(context, reference)
    arrays = {name: array[:count] for name, array in _input_arrays((first, second), sample_file).items()}
    signatures = [read_signature(context, model, arrays) for model in (first, second)]
    origin = str(sample_file) if sample_file else "the samples"
    inputs = inputs_of((first, second), signatures, arrays, forced or {}, origin)
    calls = ((first, inputs.first), (second, inputs.second))
    traces = [call_worker(context, trace_model, model, model_inputs, "trace") for model, model_inputs in calls]
    results = [run_model(context, model, model_inputs) for model, model_inputs in calls]
    outputs, _, _ = pair_tensors(specs(results[0]), specs(results[1]), forced or {})
    for trace, result in zip(traces, results, strict=True):
        for name, array in result.items():  # in a source's trace, outputs have the names of internal tensors
            trace.setdefault(name, array)
    pairs = [(pair.first.name, pair.second.name) for pair in outputs]
    return diff_layers(traces[0], traces[1], coarser_precision(context, (first, second)), pairs)
