"""The export stage: a source and a variant in, an artifact folder out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.core import calibration, plugins, samples
from edgekit.core.artifact import Artifact, Manifest, load_artifact, write_manifest
from edgekit.core.errors import DiskFull, InputError, StepError
from edgekit.core.events import Noted
from edgekit.core.files import sha256_file, staged_folder
from edgekit.core.samples import Samples
from edgekit.core.source import CALIBRATION_FILE, GOLDEN_FILE, SourceModel, load_source
from edgekit.core.specs import Route, Variant
from edgekit.core.units import format_bytes
from edgekit.sources.bridges._base import Bridge
from edgekit.stages import routes
from edgekit.stages.context import Context, source_environment
from edgekit.stages.train import TrainOptions, train
from edgekit.targets._base import Converted, Target
from edgekit.workers.environment import Environment

DEFAULT_CALIBRATION_SAMPLES = 200


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
    context: Context,
    models: Sequence[str],
    kinds: Sequence[str],
    selection: Sequence[tuple[Target, str | None]],
    *,
    kinds_named: bool,
    targets_named: bool,
) -> tuple[ExportPlan, ...]:
    """Every export that the user's choice stands for. Raises InputError when a choice cannot be reached."""
    chosen = routes.select(kinds, selection, kinds_named=kinds_named, targets_named=targets_named)
    plans = [ExportPlan(model, kind, variant, found) for model in models for kind, variant, found in chosen]
    # Kind by kind: a worker then keeps its framework and its loaded model.
    return tuple(
        sorted(plans, key=lambda item: (kinds.index(item.kind), item.routes[0].bridges, models.index(item.model)))
    )


def _calibration(context: Context, item: ExportPlan, source: SourceModel, count: int) -> Samples:
    """The first `count` calibration samples. What the linter finds in them is told. Raises InputError for too many."""
    folder = context.project.source_folder(item.model, item.kind)
    pool = samples.load(folder / CALIBRATION_FILE, "calibration samples")
    if count > pool.count:
        raise InputError(
            f"{source.name}: {count} calibration samples were asked for; the trained model keeps {pool.count}"
        )
    labels = None if pool.labels is None else pool.labels[:count]
    chosen = Samples({name: array[:count] for name, array in pool.inputs.items()}, {}, labels)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    for finding in calibration.lint(chosen.inputs, golden.inputs, labels, golden.labels):
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
        source = load_source(context.project.source_folder(model, kind))
    except InputError:
        return  # each export that needs it will say so
    code = context.project.model_folder(model) / (source.code or "")
    if source.code and code.is_file() and sha256_file(code) != source.code_sha256:
        detail = f"{code.name} has changed since these weights were trained; run: edgekit train {model}"
        context.emit(Noted(f"export {model}/{kind}", detail, warning=True))


def pin(plans: Sequence[ExportPlan], steps: tuple[str, ...]) -> tuple[ExportPlan, ...]:
    """The plans that can take this route, by it alone. Raises InputError that lists the routes when none can."""
    pinned = [replace(item, routes=(route,)) for item in plans for route in item.routes if route.steps == steps]
    if not pinned:
        known = dict.fromkeys(str(route) for item in plans for route in item.routes)
        raise InputError(f"no export takes the route {' -> '.join(steps)}; routes: {'; '.join(known) or 'none'}")
    return tuple(pinned)


def export_one(context: Context, item: ExportPlan, calibration_samples: int) -> Artifact:
    """Converts one variant, by the first of its routes that does not crash or refuse, and puts its artifact into place.

    Raises InputError, MissingDependency, StepError; then what stood there before still stands.
    """
    notes: list[str] = []
    for route in item.routes[:-1]:
        try:
            return _export_by(context, item, route, calibration_samples, notes)
        except DiskFull:
            raise
        except StepError as error:
            notes.append(f"{route} did not work: {error}")
            context.emit(Noted(item.step, f"{notes[-1]}; trying the next route", warning=True))
    return _export_by(context, item, item.routes[-1], calibration_samples, notes)


def _environment(route: Route) -> Environment:
    """The worker of the source kind, or of the bridge that is crossed."""
    if route.bridges:
        bridge: Bridge = plugins.load("edgekit.sources.bridges", routes.bridge_name(route.bridges[0]), "BRIDGE")
        return Environment.of(bridge.variables)
    return source_environment(route.source_kind)


def _export_by(
    context: Context, item: ExportPlan, route: Route, calibration_samples: int, notes: Sequence[str]
) -> Artifact:
    project = context.project
    source_folder = project.source_folder(item.model, item.kind)
    source = load_source(source_folder)
    target = routes.load_target(item.variant.target)
    chosen = None
    if item.variant.precision in target.calibrated:
        chosen = _calibration(context, item, source, calibration_samples)
    final = project.artifact_folder(item.model, item.kind, item.variant.slug)
    with staged_folder(final) as staging:
        arguments = {
            "source_folder": str(source_folder),
            "model_folder": str(project.model_folder(item.model)),
            "target": item.variant.target,
            "precision": item.variant.precision,
            "calibration": None if chosen is None else chosen.inputs,
            "folder": str(staging),
            "bridge": routes.bridge_name(route.bridges[0]) if route.bridges else None,
        }
        converted, versions = context.pool.call(
            "edgekit.stages._jobs:convert",
            arguments,
            step=item.step,
            environment=_environment(route),
            listener=context.emit,
        )
        shutil.copyfile(source_folder / GOLDEN_FILE, staging / GOLDEN_FILE)
        record = None if chosen is None else {"samples": chosen.count, "sha256": chosen.digest()}
        write_manifest(staging, _manifest(item, route, source, converted, staging, record, versions, notes))
    return load_artifact(final)


def _manifest(
    item: ExportPlan,
    route: Route,
    source: SourceModel,
    converted: Converted,
    folder: Path,
    calibration_record: Mapping[str, Any] | None,
    versions: Mapping[str, str],
    notes: Sequence[str],
) -> Manifest:
    path = folder / converted.file
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    return Manifest(
        model=item.model,
        target=item.variant.target,
        precision=item.variant.precision,
        runtime=routes.load_target(item.variant.target).runtime,
        file=converted.file,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        signature=converted.signature,
        source=_source_record(source),
        route=route.steps,
        options=dict(converted.options),
        calibration=calibration_record,
        golden={"samples": golden.count, "sha256": golden.digest()},
        versions=versions,
        notes=(*notes, *converted.notes),
        reproducible=converted.not_reproducible_because is None,
        not_reproducible_because=converted.not_reproducible_because,
    )


def _source_record(source: SourceModel) -> dict[str, Any]:
    return {
        "kind": source.kind,
        "sha256": source.sha256,
        "weights_sha256": source.training.get("weights_sha256"),
        "task": source.task,
        "metric": source.metric,
        "metric_value": source.metric_value,
        "parameters": source.parameters,
        "data_sha256": source.data.get("sha256"),
    }


def export(context: Context, plans: Sequence[ExportPlan], calibration_samples: int) -> tuple[Artifact, ...]:
    """Exports each, training what is missing; the failed ones are in `context.failures`, the others are there."""
    made = []
    for item in train_missing(context, plans):
        artifact = context.attempt(item.step, partial(export_one, context, item, calibration_samples), summary)
        if artifact is not None:
            made.append(artifact)
    return tuple(made)


def summary(artifact: Artifact) -> str:
    """The result in a few words."""
    notes = "".join(f"; {note}" for note in artifact.manifest.notes)
    return f"{format_bytes(artifact.manifest.size_bytes)}{notes}"
