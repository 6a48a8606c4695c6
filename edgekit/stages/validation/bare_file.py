"""Lets a command work on a model file that edgekit did not export, such as a `.tflite` that a vendor delivers.

The file gets what an artifact has beside it, in the temporary folder of the run: a manifest and samples, which are
random numbers. Nothing is known of its source, so nothing is said about equivalence to one.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from edgekit.contracts.target import Target
from edgekit.core.environment.atomic_files import write_json
from edgekit.core.environment.contained_files import copy_plain_file
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.random_inputs import UnknownSize, random_inputs
from edgekit.core.records.artifact import Artifact, Manifest, describe_files, files_sha256, load_artifact
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE
from edgekit.core.values.specs import FILE, Signature
from edgekit.stages.context import Context
from edgekit.stages.models.model_refs import default_name
from edgekit.stages.validation.compare import artifact_of, precision_of, read_signature, run_model, target_of
from edgekit.stages.validation.model_run_job import ModelRef


def is_bare_file(path: Path) -> bool:
    """Return whether a path is a model file of a target's format that belongs to no artifact.

    Args:
        path: The path.

    Raises:
        InputError: It is in an artifact's folder, and the manifest there is damaged.
    """
    return path.is_file() and target_of(path) is not None and artifact_of(path) is None


def artifact_of_bare_file(context: Context, path: Path) -> Artifact:
    """Make an artifact of a model file, in the temporary folder of the run.

    Args:
        context: The project and the workers.
        path: The file, of which `is_bare_file` is true.

    Returns:
        The artifact. The kind of its source is `FILE`.

    Raises:
        InputError: The file is damaged, or does not say what its inputs are.
        MissingDependency: A package that reads or runs the format is not installed.
        StepError: The worker crashed while reading or running the file.
    """
    target = target_of(path)
    assert target is not None  # `is_bare_file` is true
    model = ModelRef(str(path), target=target.name, runtime=target.runtime, path=str(path.resolve()))
    signature = _signature(context, model, target, path)
    precision = precision_of(context, model)
    inputs = _inputs(signature, path)
    outputs = run_model(context, model, inputs)
    folder = context.scratch() / f"file-{len(list(context.scratch().iterdir()))}"
    folder.mkdir()
    copy_plain_file(path, folder / target.file_name)
    golden = Samples(inputs, outputs)
    golden.save(folder / GOLDEN_FILE)
    files = describe_files(folder, (target.file_name,))
    manifest = Manifest(
        model=default_name(str(path)),
        target=target.name,
        precision=precision,
        runtime=target.runtime,
        file=target.file_name,
        sha256=files_sha256(files),
        size_bytes=files[0].size,
        signature=signature,
        source={"kind": FILE},
        route=(),
        golden={"samples": golden.count, "sha256": golden.digest()},
        notes=("a model file without a source; its samples are random numbers",),
        files=files,
    )
    write_json(folder / MANIFEST_FILE, asdict(manifest))
    artifact = load_artifact(folder)
    context.emit(NoteEvent(artifact.label, f"{path} is judged as {precision}, on samples that are random numbers"))
    return artifact


def _signature(context: Context, model: ModelRef, target: Target, path: Path) -> Signature:
    try:
        signature = read_signature(context, model, {})
    except InputError as error:
        if path.stat().st_size == 0 or target.describe_tells_precision:
            raise
        raise InputError(f"{error}; export it with the shapes of its inputs, and name the artifact instead") from None
    if not signature.inputs or not signature.outputs:
        raise InputError(
            f"{path}: {target.title} files do not say what their inputs are; export it with their shapes, and name"
            " the artifact instead"
        )
    return signature


def _inputs(signature: Signature, path: Path) -> dict[str, Array]:
    try:
        return random_inputs(signature, {})
    except UnknownSize as error:
        raise InputError(
            f"{path}: the dimension {error.dim} of the input {error.input} has no size; export the file with one, and"
            " name the artifact instead"
        ) from None
