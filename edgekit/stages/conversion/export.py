"""The export stage: a source and a variant in, an artifact folder out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contracts.bridge import BRIDGES
from edgekit.contracts.target import Target
from edgekit.core.environment.atomic_files import sha256_file, sha256_path, size_of, staged_folder, write_json
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import DiskFull, InputError, StepError
from edgekit.core.events import Noted
from edgekit.core.numerics import batching, calibration_lint, tensor_layout
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.records import samples
from edgekit.core.records.artifact import (
    Artifact,
    Manifest,
    describe_files,
    files_sha256,
    load_artifact,
    write_manifest,
)
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.units import format_bytes
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE
from edgekit.core.values.quantization_recipe import RECIPE_FILE, Recipe
from edgekit.core.values.specs import Route, Variant
from edgekit.stages.context import Context, source_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.convert_job import ConvertAnswer, ConvertRequest, convert
from edgekit.stages.models.model_refs import ModelSelection
from edgekit.stages.models.train import TrainOptions, train
from edgekit.workers.environment import Environment

DEFAULT_CALIBRATION_SAMPLES = 200


@dataclass(frozen=True)
class ExportSettings:
    """How to convert. `calibration_samples` None takes 200, or all where there are fewer; `sizes` fixes symbolic
    dimensions by name, `layout` (NCHW, NHWC) is that of images; `options` are numbers that targets take, by name;
    `recipe` is followed by the plan that `by_recipe` made."""

    calibration_samples: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    layout: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None


@dataclass(frozen=True)
class ExportPlan:
    """One export: which source, to which variant, by which routes; the first that does not crash is taken."""

    model: str
    kind: str
    variant: Variant
    routes: tuple[Route, ...]

    @property
    def step(self) -> str:
        """`export simple_cnn/keras tflite:int8`."""
        return f"export {self.model}/{self.kind} {self.variant}"


def plan(
    subjects: ModelSelection, selection: Sequence[tuple[Target, str | None]], *, targets_named: bool
) -> tuple[ExportPlan, ...]:
    """Every export that the user's choice stands for. Raises InputError when a choice cannot be reached."""
    models, kinds = subjects.models, subjects.kinds
    chosen = routes.select_variants(kinds, selection, kinds_named=subjects.kinds_named, targets_named=targets_named)
    plans = [ExportPlan(model, kind, variant, found) for model in models for kind, variant, found in chosen]
    # Kind by kind: a worker then keeps its framework and its loaded model.
    return tuple(
        sorted(plans, key=lambda item: (kinds.index(item.kind), item.routes[0].bridges, models.index(item.model)))
    )


def feasible_plans(
    context: Context, plans: Sequence[ExportPlan], settings: ExportSettings, *, targets_named: bool
) -> tuple[ExportPlan, ...]:
    """The plans that these settings fit. What was not named and cannot be made is noted and left out.

    Raises InputError when an option is for targets that are not among them, or a size for no dimension of the model.
    """
    for model, kind in dict.fromkeys((item.model, item.kind) for item in plans):
        if settings.sizes and context.project.is_trained(model, kind):
            _check_sizes(context.load_source(context.project.source_folder(model, kind)), settings.sizes)
    takers = {name for item in plans for name in routes.load_target(item.variant.target).options}
    for name in settings.options:
        if name not in takers:
            raise InputError(f"--{name.replace('_', '-')} is for targets that are not chosen here")
    if targets_named:
        return tuple(plans)
    kept = [item for item in plans if not _lacks_calibration(context, item)]
    for model, kind in dict.fromkeys((item.model, item.kind) for item in plans if item not in kept):
        left = ", ".join(str(item.variant) for item in plans if item not in kept and item.model == model)
        detail = f"left out {left}: no calibration samples; give --calibration or --sample"
        context.emit(Noted(f"export {model}/{kind}", detail, warning=True))
    return tuple(kept)


def _lacks_calibration(context: Context, item: ExportPlan) -> bool:
    """Whether the variant needs calibration samples and a source is there without any."""
    calibrated = item.variant.precision in routes.load_target(item.variant.target).calibrated
    there = context.project.is_trained(item.model, item.kind)
    folder = context.project.source_folder(item.model, item.kind)
    return calibrated and there and not (folder / CALIBRATION_FILE).is_file()


def _calibration(context: Context, item: ExportPlan, source: SourceModel, settings: ExportSettings) -> Samples:
    """The first of the calibration samples. What the linter finds in them is told.

    Raises InputError when there are none, or fewer than were asked for.
    """
    folder = context.project.source_folder(item.model, item.kind)
    wanted = (settings.recipe and settings.recipe.calibration_samples) or settings.calibration_samples
    if not (folder / CALIBRATION_FILE).is_file():
        raise InputError(
            f"{item.variant} of {source.name} needs real inputs to take its ranges from: give --calibration"
            " (an npz or npy file, a folder of images, or FILE.py:GENERATOR), or --sample"
        )
    pool = samples.load(folder / CALIBRATION_FILE, "calibration samples")
    available = batching.n_samples(source.signature, pool.inputs)
    if wanted is not None and wanted > available:
        raise InputError(
            f"{source.name}: {wanted} calibration samples were asked for; the trained model keeps {available}"
        )
    count = min(DEFAULT_CALIBRATION_SAMPLES, available) if wanted is None else wanted
    labels = None if pool.labels is None else pool.labels[:count]
    chosen = Samples(batching.select_samples(source.signature, pool.inputs, 0, count), {}, labels)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    # Random golden samples tell nothing of the range that the model's data has.
    reference = chosen.inputs if source.notes else golden.inputs
    for finding in calibration_lint.lint(chosen.inputs, reference, labels, golden.labels):
        context.emit(Noted(item.step, f"calibration samples: {finding}", warning=True))
    return chosen


def train_missing(context: Context, plans: Sequence[ExportPlan]) -> tuple[ExportPlan, ...]:
    """Trains each source that a plan needs and that is not there; the plans whose source is there now."""
    wanted = dict.fromkeys((item.model, item.kind) for item in plans)
    for model, kind in wanted:
        if context.project.is_trained(model, kind):
            _warn_if_stale(context, model, kind)
        else:
            train(context, (model,), (kind,), TrainOptions())
    return tuple(item for item in plans if context.project.is_trained(item.model, item.kind))


def _warn_if_stale(context: Context, model: str, kind: str) -> None:
    """Says so when the code that builds the network has changed since its weights were trained."""
    try:
        source = context.load_source(context.project.source_folder(model, kind))
    except InputError:
        return  # each export that needs it will say so
    if source.code is None:
        return
    code = Factory.parse(source.code).file(context.project.code_base(model))
    if code is not None and code.is_file() and sha256_file(code) != source.code_sha256:
        trained = model in context.project.models()
        again = f"trained; run: edgekit train {model}" if trained else f"imported; run: edgekit export {source.code}"
        detail = f"{code.name} has changed since these weights were {again}"
        context.emit(Noted(f"export {model}/{kind}", detail, warning=True))


def pin_route(plans: Sequence[ExportPlan], steps: tuple[str, ...]) -> tuple[ExportPlan, ...]:
    """The plans that can take this route, by it alone. Raises InputError that lists the routes when none can."""
    pinned = [replace(item, routes=(route,)) for item in plans for route in item.routes if route.steps == steps]
    if not pinned:
        known = dict.fromkeys(str(route) for item in plans for route in item.routes)
        raise InputError(f"no export takes the route {' -> '.join(steps)}; routes: {'; '.join(known) or 'none'}")
    return tuple(pinned)


def with_recipe(plans: Sequence[ExportPlan], recipe: Recipe) -> tuple[ExportPlan, ...]:
    """The plans as a recipe makes them: beside the artifact that the variant has without one."""
    return tuple(replace(item, variant=recipe.variant) for item in plans)


def export_one(context: Context, item: ExportPlan, settings: ExportSettings, folder: Path | None = None) -> Artifact:
    """Converts one variant, by the first of its routes that does not crash or refuse, and puts its artifact into place:
    into `folder`, or where artifacts of the project stand.

    Raises InputError, MissingDependency, StepError; then what stood there before still stands.
    """
    notes: list[str] = []
    final = folder or context.project.artifact_folder(item.model, item.kind, item.variant.slug)
    for route in item.routes[:-1]:
        try:
            return _export_by(context, item, route, settings, notes, final)
        except DiskFull:
            raise
        except StepError as error:
            notes.append(f"{route} did not work: {error}")
            context.emit(Noted(item.step, f"{notes[-1]}; trying the next route", warning=True))
    return _export_by(context, item, item.routes[-1], settings, notes, final)


def _environment(kind: str, bridge: tuple[str, str] | None) -> Environment:
    """The worker of the source kind, or of the bridge that is crossed."""
    if bridge is not None:
        plugin = BRIDGES.load(routes.bridge_name(bridge))
        return Environment.of(plugin.variables)
    return source_environment(kind)


def _export_by(
    context: Context, item: ExportPlan, route: Route, settings: ExportSettings, notes: Sequence[str], final: Path
) -> Artifact:
    project = context.project
    source_folder = project.source_folder(item.model, item.kind)
    source = context.load_source(source_folder)
    _check_sizes(source, settings.sizes)
    target = routes.load_target(item.variant.target)
    chosen = None
    if item.variant.precision in target.calibrated:
        chosen = _calibration(context, item, source, settings)
    with staged_folder(final) as staging:
        request, environment = conversion_request(context, item, route, settings, staging)
        request = replace(request, calibration=None if chosen is None else chosen.inputs)
        answer = context.pool.call(
            convert,
            request,
            step=item.step,
            environment=environment,
            listener=context.emit,
            affinity_key=request.source_folder,
        )
        if settings.recipe is not None:
            write_json(staging / RECIPE_FILE, settings.recipe.to_dict())
        _write_golden(source_folder, staging, answer.orders)
        record = None if chosen is None else {"samples": chosen.count, "sha256": chosen.digest()}
        write_manifest(staging, _manifest(item, route, source, source_folder, answer, staging, record, settings, notes))
    return load_artifact(final)


def conversion_request(
    context: Context, item: ExportPlan, route: Route, settings: ExportSettings, folder: Path
) -> tuple[ConvertRequest, Environment]:
    """What a worker is asked for, without calibration samples, and the worker that can do it."""
    target = routes.load_target(item.variant.target)
    source_folder = context.project.source_folder(item.model, item.kind)
    first, bridge = _start(context, item, route, source_folder)
    request = ConvertRequest(
        source_folder=str(first),
        source=context.load_source(first),
        base=str(context.project.code_base(item.model)),
        target=item.variant.target,
        precision=item.variant.precision,
        folder=str(folder),
        bridge=None if bridge is None else routes.bridge_name(bridge),
        sizes=settings.sizes,
        layout=settings.layout,
        options={name: value for name, value in settings.options.items() if name in target.options},
        recipe=settings.recipe,
    )
    kind = bridge[0] if bridge is not None else route.converter_kind
    return request, _environment(kind, bridge)


def _check_sizes(source: SourceModel, sizes: Mapping[str, int]) -> None:
    """Refuses a dimension that the model does not have, or at another size than its samples."""
    symbols = source.signature.symbols
    for name, size in sizes.items():
        if name not in symbols:
            listed = ", ".join(symbols) or "none"
            raise InputError(f"{source.name} has no symbolic dimension {name}; it has: {listed}")
        if source.sizes.get(name, size) != size:
            raise InputError(
                f"--dim {name}={size}: the samples of {source.name} have {name}={source.sizes[name]};"
                " give a --sample of that size"
            )


def _start(
    context: Context, item: ExportPlan, route: Route, source_folder: Path
) -> tuple[Path, tuple[str, str] | None]:
    """The source folder that the last worker starts from, and the bridge that it crosses.

    A kind that is written as a file of another kind (a SavedModel as ONNX) is written first, once a run.
    """
    bridges = route.bridges
    if not bridges or bridges[0] in routes.bridges():
        return source_folder, next(iter(bridges), None)
    kind, written = bridges[0]
    key = (str(source_folder), written)
    if key not in context.converted_sources:
        context.converted_sources[key] = _write_as(context, item, source_folder, kind, written)
    return context.converted_sources[key], bridges[1] if len(bridges) > 1 else None


def _write_as(context: Context, item: ExportPlan, source_folder: Path, kind: str, written: str) -> Path:
    """The source as a file of another kind, in a source folder of its own that ends with the run."""
    folder = Path(tempfile.mkdtemp(prefix=f"{written}-", dir=context.scratch()))
    source = context.load_source(source_folder)
    base = str(context.project.code_base(item.model))
    answer = context.pool.call(
        convert,
        ConvertRequest(str(source_folder), source, base, written, "float32", str(folder)),
        step=item.step,
        environment=_environment(kind, None),
        listener=context.emit,
    )
    file = answer.converted.file
    replace(source, kind=written, file=file, sha256=sha256_path(folder / file), code=None, code_sha256=None).save(
        folder
    )
    return folder


def _write_golden(source_folder: Path, folder: Path, orders: Mapping[str, Permutation]) -> None:
    """The golden samples beside the artifact, in its layout."""
    if not orders:
        shutil.copyfile(source_folder / GOLDEN_FILE, folder / GOLDEN_FILE)
        return
    golden = samples.load(source_folder / GOLDEN_FILE, "golden samples")
    inputs, outputs = (tensor_layout.transpose_arrays(arrays, orders) for arrays in (golden.inputs, golden.outputs))
    Samples(inputs, outputs, golden.labels).save(folder / GOLDEN_FILE)


def _manifest(
    item: ExportPlan,
    route: Route,
    source: SourceModel,
    source_folder: Path,
    answer: ConvertAnswer,
    folder: Path,
    calibration_record: Mapping[str, Any] | None,
    settings: ExportSettings,
    notes: Sequence[str],
) -> Manifest:
    converted = answer.converted
    files = describe_files(folder, converted.files)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    return Manifest(
        model=item.model,
        target=item.variant.target,
        precision=item.variant.precision,
        runtime=routes.load_target(item.variant.target).runtime,
        file=converted.file,
        sha256=files_sha256(files),
        size_bytes=sum(file.size for file in files),
        signature=converted.signature,
        source=_source_record(source, source_folder),
        route=route.steps,
        options={**converted.options, **_setting_options(settings, answer)},
        calibration=calibration_record,
        golden={"samples": golden.count, "sha256": golden.digest()},
        versions=answer.versions,
        notes=(*source.notes, *notes, *_layout_note(settings, answer), *converted.notes),
        reproducible=converted.not_reproducible_because is None,
        not_reproducible_because=converted.not_reproducible_because,
        files=files,
    )


def _setting_options(settings: ExportSettings, answer: ConvertAnswer) -> dict[str, Any]:
    """What the user chose beside the variant."""
    chosen: dict[str, Any] = {}
    if settings.sizes:
        chosen["dims"] = dict(settings.sizes)
    if settings.layout is not None:
        chosen |= {"layout": settings.layout, "transposes": answer.transposes}
    if settings.recipe is not None:
        chosen["recipe"] = settings.recipe.to_dict()
    return chosen


def _layout_note(settings: ExportSettings, answer: ConvertAnswer) -> tuple[str, ...]:
    if settings.layout is None:
        return ()
    added = answer.transposes - answer.transposes_unmoved
    return (f"layout {settings.layout}: {answer.transposes} transposes in the file, {added:+d} by this layout",)


def _source_record(source: SourceModel, folder: Path) -> dict[str, Any]:
    return {
        "notes": list(source.notes),
        "size_bytes": size_of(folder / source.file),
        "kind": source.kind,
        "sha256": source.sha256,
        "weights_sha256": source.training.get("weights_sha256"),
        "code_sha256": source.code_sha256,
        "task": source.task,
        "metric": source.metric,
        "metric_value": source.metric_value,
        "parameters": source.parameters,
        "data_sha256": source.data.get("sha256"),
        "rounding": {name: asdict(item) for name, item in source.rounding.items()},
    }


def export(context: Context, plans: Sequence[ExportPlan], settings: ExportSettings) -> tuple[Artifact, ...]:
    """Exports each, training what is missing; the failed ones are in `context.failures`, the others are there."""
    made = []
    for item in train_missing(context, plans):
        artifact = context.attempt(item.step, partial(export_one, context, item, settings), summary)
        if artifact is not None:
            made.append(artifact)
    return tuple(made)


def summary(artifact: Artifact) -> str:
    """The result in a few words: the size after and before. What is to say of the source was said when it came in."""
    manifest = artifact.manifest
    notes = "".join(f"; {note}" for note in manifest.notes if note not in manifest.source.get("notes", ()))
    before = manifest.source.get("size_bytes")
    return format_bytes(manifest.size_bytes) + (f" from {format_bytes(before)}" if before else "") + notes
