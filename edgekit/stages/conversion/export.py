"""The export stage: converts sources to variants and writes artifact folders."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit.contracts.bridge import BRIDGES, Bridge
from edgekit.contracts.source import SOURCES, SourceKind
from edgekit.contracts.target import Target
from edgekit.core.environment.atomic_files import sha256_path, staged_folder, write_json
from edgekit.core.environment.contained_files import copy_plain_file
from edgekit.core.errors import DiskFull, InputError, StepCrashed, StepError, StepOutOfMemory
from edgekit.core.events import NoteEvent
from edgekit.core.numerics import batching, calibration_lint, tensor_layout
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.records import samples
from edgekit.core.records.artifact import (
    Artifact,
    load_artifact,
    write_manifest,
)
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.units import format_bytes
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.quantization_recipe import RECIPE_FILE
from edgekit.core.values.specs import Route
from edgekit.stages.context import Context
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.convert_job import ConvertAnswer, ConvertRequest, convert
from edgekit.stages.conversion.export_manifest import (
    manifest_of,
    requested_options,
    samples_record,
)
from edgekit.stages.conversion.export_plans import (
    ExportPlan,
    ExportSettings,
    check_sizes,
    train_missing,
)
from edgekit.stages.conversion.repair import SelectionSamples
from edgekit.stages.models.recorded_code import recorded_code
from edgekit.workers.environment import Environment

_log = logging.getLogger(__name__)

# Ranges hardly change with more samples, and the time of a conversion grows with their number.
DEFAULT_CALIBRATION_SAMPLES = 200
# Ways to quantize are compared on samples behind those of the calibration: few, since the ways differ by decibels.
_SELECTION_SAMPLES, _MIN_SELECTION_SAMPLES = 64, 16


def _calibration(context: Context, export_plan: ExportPlan, source: SourceModel, settings: ExportSettings) -> Samples:
    """Return the first calibration samples, as many as requested, and report what the linter finds in them.

    Raises:
        InputError: There are none, or fewer than requested.
    """
    folder = context.project.source_folder(export_plan.model, export_plan.kind)
    requested = (settings.recipe and settings.recipe.calibration_samples) or settings.calibration_samples
    if not (folder / CALIBRATION_FILE).is_file():
        raise InputError(
            f"{export_plan.variant} of {source.name} needs calibration samples: pass an npz or npy file, a folder of"
            " images, or FILE.py:GENERATOR, or a sample that they are taken from",
            parameters=("calibration", "sample"),
        )
    all_samples = samples.load(folder / CALIBRATION_FILE, "calibration samples")
    available = batching.n_samples(source.signature, all_samples.inputs)
    if requested is not None and requested > available:
        raise InputError(f"{source.name}: {requested} calibration samples requested, but the source has {available}")
    count = min(DEFAULT_CALIBRATION_SAMPLES, available) if requested is None else requested
    if count == 1:
        raise InputError(
            f"{export_plan.variant} of {source.name} cannot take ranges from a single calibration sample: every other"
            " input would be clipped to what is in that one; pass several",
            parameters=("calibration", "sample", "calibration_samples"),
        )
    labels = None if all_samples.labels is None else all_samples.labels[:count]
    calibration = Samples(batching.select_samples(source.signature, all_samples.inputs, 0, count), {}, labels)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    # The range of random golden samples is not that of the model's data.
    reference = golden.inputs if source.has_real_samples else calibration.inputs
    for finding in calibration_lint.lint(calibration.inputs, reference, labels, golden.labels):
        context.emit(NoteEvent(export_plan.step, f"calibration samples: {finding}", warning=True))
    # int16 activations have 256 times finer steps.
    if find_precision(export_plan.variant.precision).activation_bits == 8:
        for finding in calibration_lint.lint_outputs(golden.outputs, source.signature.output_layouts):
            context.emit(NoteEvent(export_plan.step, f"outputs: {finding}", warning=True))
    return calibration


def _selection(
    source: SourceModel, folder: Path, export_plan: ExportPlan, calibration: Samples | None, settings: ExportSettings
) -> SelectionSamples | None:
    """Return samples to compare ways to quantize on: those behind the calibration samples, else the last of these.

    None where there are too few, or nothing to choose: a float precision, a recipe, or what the user has ruled out.
    """
    path = folder / CALIBRATION_FILE
    is_float = find_precision(export_plan.variant.precision).is_float
    if is_float or not settings.repair or settings.recipe is not None or settings.layout or not path.is_file():
        return None
    pool = samples.load(path, "calibration samples").inputs
    available = batching.n_samples(source.signature, pool)
    used = min(DEFAULT_CALIBRATION_SAMPLES, available) if calibration is None else calibration.count

    def part(start: int, stop: int) -> dict[str, Array]:
        return batching.select_samples(source.signature, pool, start, stop)

    if available - used >= _MIN_SELECTION_SAMPLES:
        return SelectionSamples(part(used, min(used + _SELECTION_SAMPLES, available)), part(0, used))
    count = used // 5
    if count < _MIN_SELECTION_SAMPLES:
        return None
    fewer = part(0, used - count)
    return SelectionSamples(part(used - count, used), fewer, None if calibration is None else fewer)


def _measured(source: SourceModel, folder: Path, settings: ExportSettings) -> Mapping[str, Array] | None:
    """Return the samples that ranges of channels are measured with: the first of the calibration samples."""
    if not (folder / CALIBRATION_FILE).is_file():
        return None
    pool = samples.load(folder / CALIBRATION_FILE, "calibration samples").inputs
    available = batching.n_samples(source.signature, pool)
    requested = (settings.recipe and settings.recipe.calibration_samples) or settings.calibration_samples
    count = min(requested or DEFAULT_CALIBRATION_SAMPLES, available)
    return batching.select_samples(source.signature, pool, 0, count)


def export_one(
    context: Context, export_plan: ExportPlan, settings: ExportSettings, folder: Path | None = None
) -> Artifact:
    """Export one variant by the first of its routes that works.

    An existing artifact is replaced only after the export has finished.

    Args:
        context: The project and the workers.
        export_plan: The export.
        settings: The settings.
        folder: The artifact folder to write; None for the one in build/.

    Raises:
        InputError: The source, the samples or a setting is invalid.
        MissingDependency: A package is not installed.
        StepError: The last route failed.
    """
    notes: list[str] = []
    final = folder or context.project.artifact_folder(export_plan.model, export_plan.kind, export_plan.variant.slug)
    step = {"step": export_plan.step}
    for route in export_plan.routes[:-1]:
        try:
            _log.info("route %s chosen: the shortest of %d", route, len(export_plan.routes) - len(notes), extra=step)
            return _export_by(context, export_plan, route, settings, notes, final)
        except DiskFull:
            raise
        except StepError as error:
            notes.append(f"{route} failed: {error}")
            context.emit(NoteEvent(export_plan.step, f"{notes[-1]}; trying the next route", warning=True))
    reason = "the others failed" if notes else "the only one"
    _log.info("route %s chosen: %s", export_plan.routes[-1], reason, extra=step)
    return _export_by(context, export_plan, export_plan.routes[-1], settings, notes, final)


def _environment(kind: str, bridge: tuple[str, str] | None, target: Target, code: str | None) -> Environment:
    """Return the environment of the bridge's worker, or of the source kind's worker if there is no bridge."""
    plugin: SourceKind | Bridge = SOURCES.load(kind) if bridge is None else BRIDGES.load(routes.bridge_name(bridge))
    confined = plugin.confined and target.confined and code is None
    return replace(Environment.of(plugin.variables, confined=confined), programs=target.programs())


def _export_by(
    context: Context, export_plan: ExportPlan, route: Route, settings: ExportSettings, notes: Sequence[str], final: Path
) -> Artifact:
    project = context.project
    source_folder = project.source_folder(export_plan.model, export_plan.kind)
    source = context.load_source(source_folder)
    check_sizes(source, settings.sizes)
    target = routes.load_target(export_plan.variant.target)
    calibration = None
    if export_plan.variant.precision in target.calibrated:
        calibration = _calibration(context, export_plan, source, settings)
    with staged_folder(final) as staging:
        with context.worker_output(staging) as output:
            request, environment = conversion_request(context, export_plan, route, settings, output)
            inputs = None if calibration is None else calibration.inputs
            selection = _selection(source, source_folder, export_plan, calibration, settings)
            request = replace(request, calibration=inputs, selection=selection)
            answer = _convert(context, export_plan, request, environment)
            for finding in answer.findings:
                context.emit(NoteEvent(export_plan.step, finding, warning=True))
        if settings.recipe is not None:
            write_json(staging / RECIPE_FILE, settings.recipe.to_dict())
        _write_golden(source_folder, staging, answer.orders)
        record = (
            None if calibration is None else samples_record(calibration, synthetic=source.has_synthetic_calibration)
        )
        write_manifest(
            staging, manifest_of(export_plan, route, source, source_folder, answer, staging, record, settings, notes)
        )
    return load_artifact(final)


def _convert(
    context: Context, export_plan: ExportPlan, request: ConvertRequest, environment: Environment
) -> ConvertAnswer:
    """Convert in a worker; without a search for the best way if that ended the worker."""

    def call(request: ConvertRequest) -> ConvertAnswer:
        return context.pool.call(
            convert,
            request,
            step=export_plan.step,
            environment=environment,
            listener=context.emit,
            affinity_key=request.source_folder,
        )

    try:
        return call(request)
    except (StepCrashed, StepOutOfMemory) as error:
        if request.selection is None:
            raise
        # Conversion and runtime share the worker: a file that crashes its runtime is still what the user asked for.
        _log.warning("no search for the best way to quantize: %s", error, extra={"step": export_plan.step})
        for leftover in Path(request.folder).iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return call(replace(request, selection=None))


def conversion_request(
    context: Context, export_plan: ExportPlan, route: Route, settings: ExportSettings, folder: Path
) -> tuple[ConvertRequest, Environment]:
    """Build the request of a conversion.

    Args:
        context: The project and the workers.
        export_plan: The export.
        route: The route to use.
        settings: The settings.
        folder: The folder to write the model file into.

    Returns:
        The request without calibration samples, and the environment of the worker.

    Raises:
        InputError: The source is damaged.
        MissingDependency: A package is not installed.
        StepError: Writing the source as a file of another source kind failed.
    """
    target = routes.load_target(export_plan.variant.target)
    source_folder = context.project.source_folder(export_plan.model, export_plan.kind)
    start_folder, bridge = _start(context, export_plan, route, source_folder)
    source = context.load_source(start_folder)
    recipe = settings.recipe
    request = ConvertRequest(
        source_folder=str(start_folder),
        source=source,
        code=recorded_code(context, source),
        target=export_plan.variant.target,
        precision=export_plan.variant.precision,
        folder=str(folder),
        bridge=None if bridge is None else routes.bridge_name(bridge),
        sizes=settings.sizes,
        layout=settings.layout,
        options=requested_options(target, settings),
        recipe=recipe,
        form=settings.form,
        measured=None if recipe is None or recipe.migration is None else _measured(source, source_folder, settings),
    )
    kind = bridge[0] if bridge is not None else route.converter_kind
    return request, _environment(kind, bridge, target, request.source.code)


def _start(
    context: Context, export_plan: ExportPlan, route: Route, source_folder: Path
) -> tuple[Path, tuple[str, str] | None]:
    """Return the source folder that the last worker starts from, and the bridge that it uses.

    A source that a target converts to another source kind (a SavedModel to ONNX) is converted first, once a run.
    """
    bridges = route.bridges
    if not bridges or bridges[0] in routes.bridges():
        return source_folder, next(iter(bridges), None)
    kind, new_kind = bridges[0]
    key = (str(source_folder), new_kind)
    if key not in context.converted_sources:
        context.converted_sources[key] = _convert_source(context, export_plan, source_folder, kind, new_kind)
    return context.converted_sources[key], bridges[1] if len(bridges) > 1 else None


def _convert_source(context: Context, export_plan: ExportPlan, source_folder: Path, kind: str, new_kind: str) -> Path:
    """Convert a source to another source kind, in a temporary source folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"{new_kind}-", dir=context.scratch()))
    source = context.load_source(source_folder)
    code = recorded_code(context, source)
    answer = context.pool.call(
        convert,
        ConvertRequest(str(source_folder), source, code, new_kind, "float32", str(folder)),
        step=export_plan.step,
        environment=_environment(kind, None, routes.load_target(new_kind), source.code),
        listener=context.emit,
    )
    file = answer.converted.file
    sha256 = sha256_path(folder / file)
    if (source_folder / GOLDEN_FILE).is_file():  # the bridge that reads the file is compared with them
        copy_plain_file(source_folder / GOLDEN_FILE, folder / GOLDEN_FILE)
    # The file has what the source was loaded with: inputs that are fixed, and steps in front of inputs.
    written = replace(source, kind=new_kind, file=file, sha256=sha256, fixed=(), preprocessing=())
    replace(written, code=None, code_sha256=None).save(folder)
    return folder


def _write_golden(source_folder: Path, folder: Path, orders: Mapping[str, Permutation]) -> None:
    """Write the golden samples next to the artifact, in its layout."""
    if not orders:
        copy_plain_file(source_folder / GOLDEN_FILE, folder / GOLDEN_FILE)
        return
    golden = samples.load(source_folder / GOLDEN_FILE, "golden samples")
    inputs, outputs = (tensor_layout.transpose_arrays(arrays, orders) for arrays in (golden.inputs, golden.outputs))
    Samples(inputs, outputs, golden.labels).save(folder / GOLDEN_FILE)


def export(context: Context, plans: Sequence[ExportPlan], settings: ExportSettings) -> tuple[Artifact, ...]:
    """Execute exports one by one; missing sources are trained first.

    Args:
        context: The project and the workers; errors are added to its failures.
        plans: The exports.
        settings: The settings.

    Returns:
        The artifacts of the exports that succeeded.

    Raises:
        InputError: The model.toml of a missing source is invalid.
    """
    artifacts = []
    plans = train_missing(context, plans)
    steps = [export_plan.step for export_plan in plans]
    for index, export_plan in enumerate(plans):
        context.emit_overview(steps, index)
        artifact = context.attempt(export_plan.step, partial(export_one, context, export_plan, settings), summary)
        if artifact is not None:
            artifacts.append(artifact)
    return tuple(artifacts)


def summary(artifact: Artifact) -> str:
    """Return the result in a few words: the size before and after, and the notes that the source does not have."""
    manifest = artifact.manifest
    notes = "".join(f"; {note}" for note in manifest.notes if note not in manifest.source.get("notes", ()))
    before = manifest.source.get("size_bytes")
    return format_bytes(manifest.size_bytes) + (f" from {format_bytes(before)}" if before else "") + notes
