"""The tune stage: of everything that a target can make of a source, what meets the constraints best.

Whole precisions first. Where a precision is small enough and not accurate enough: the way and the number of samples
that its ranges are taken from, then single layers back in float (`_search.py`), then int16 activations in their place.
Only what is small and accurate enough is measured. Everything is tried in a scratch folder (`_tuning.py`); the winner
alone is put into the project, as the artifact that `edgekit export --recipe` would write.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.contracts.target import Target
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.numerics.tolerances import tolerances_for_precision
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import load_source
from edgekit.core.records.tuning import Candidate, Constraints, LayerSensitivity, Tuning, best, nearest
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.precisions import find_precision, precisions
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.core.values.specs import HOST, Route, Variant
from edgekit.devices.emulation import emulator
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, routes
from edgekit.stages.conversion.export import ExportPlan, ExportSettings
from edgekit.stages.tuning.search import Judge, Search
from edgekit.stages.tuning.session import (
    TuneOptions,
    TuningSession,
    artifact_of,
    float_base,
    latency_of,
    run_artifact,
    trial_runner,
    try_candidate,
)
from edgekit.stages.validation.validate import own_tolerances, validate_one

__all__ = ["TuneOptions", "tune"]

_COUNTS = (50, export.DEFAULT_CALIBRATION_SAMPLES)
_CLEAR_DB = 1.0
_MEASURED = 8
"""So many candidates are measured at most, the smallest ones."""


def tune(
    context: Context, model: str, kind: str, target: Target, settings: ExportSettings, options: TuneOptions
) -> tuple[Tuning, Artifact | None]:
    """Searches, and writes the winner as an artifact of its own; a source that is not there is trained first.

    Raises InputError when nothing of the target can be made of the source, MissingDependency, StepError.
    """
    started = time.monotonic()
    run = _prepare(context, model, kind, target, settings, options)
    for precision in run.plans:
        if not run.tried or not run.late:  # there is something to choose from whatever the limit
            _whole(run, precision)
    if not run.tried:
        raise InputError(f"{target.name} made nothing of {model}/{kind} that could be judged: {'; '.join(run.notes)}")
    for precision in _refinement_order():
        if precision in run.plans and not run.late and _worth_refining(run, precision):
            _refine(run, precision)
    _measure(run)
    winner = best((item for item in run.tried if item.meets(run.constraints)), options.preference)
    close = winner or nearest(run.tried, run.constraints)
    tuning = Tuning(
        model=model,
        kind=kind,
        target=target.name,
        constraints=run.constraints,
        preference=options.preference,
        candidates=tuple(run.tried),
        sensitivities=tuple(run.sensitivities),
        winner=winner,
        nearest=close,
        judged_by=_judged_by(run),
        device=options.device,
        tier=options.tier,
        stopped=run.stopped,
        seconds=time.monotonic() - started,
        notes=tuple(run.notes),
    )
    return tuning, _write(run, close) if winner is not None or options.keep_best else None


def measure_sensitivity(context: Context, artifact: Artifact) -> tuple[LayerSensitivity, ...]:
    """Which layers of a quantized artifact contribute most to its output's error: each is put back into float alone.

    It is made anew from its source for that, as `edgekit export` makes it. Raises InputError when its target keeps no
    single layers in float, or its source is gone; MissingDependency, StepError.
    """
    manifest = artifact.manifest
    target = routes.load_target(manifest.target)
    if manifest.precision not in target.selective:
        able = ", ".join(target.selective) or "no precision"
        raise InputError(f"{manifest.variant}: {target.name} keeps single layers in float at {able}")
    count = (manifest.calibration or {}).get("samples")
    settings = ExportSettings(calibration_samples=count)
    run = _prepare(context, manifest.model, manifest.source["kind"], target, settings, TuneOptions())
    base = float_base(run, manifest.precision)
    if base is None:
        raise InputError(f"{artifact.label}: its float32 twin could not be made: {'; '.join(run.notes)}")
    attempt = trial_runner(run, base)
    search = Search(attempt, run.judge, run.constraints, base.layers, run.progress, run.note)
    return tuple(search.measure_sensitivity(Recipe(target.name, manifest.precision)))


def _prepare(
    context: Context, model: str, kind: str, target: Target, settings: ExportSettings, options: TuneOptions
) -> TuningSession:
    guest = None
    if options.tier == "emulated" and options.profile is not None:
        guest = emulator.open_guest(options.device, options.profile)
    chosen = [(Variant(target.name, precision), found) for precision, found in _reached(kind, target, options)]
    if not chosen:
        raise InputError(f"{options.device} runs nothing that {target.name} makes of {kind} models")
    plans = [ExportPlan(model, kind, variant, found) for variant, found in chosen]
    there = export.train_missing(context, plans)
    if not there:
        raise InputError(f"{model}/{kind} could not be trained")
    there = export.feasible_plans(context, there, settings, targets_named=False)
    folder = context.project.source_folder(model, kind)
    source = load_source(folder)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    test = samples.load(folder / TEST_FILE, "test samples") if (folder / TEST_FILE).is_file() else None

    def tolerances(precision: str) -> dict[str, object]:
        own = own_tolerances(context, model, precision)
        return {name: tolerances_for_precision(precision, own, source.rounding.get(name)) for name in golden.outputs}

    judge = Judge(source, golden, test, tolerances)  # type: ignore[arg-type]
    limit = options.time_limit_s
    return TuningSession(
        context,
        source,
        folder,
        target,
        {item.variant.precision: item for item in there},
        settings,
        options,
        _constraints(judge, options),
        judge,
        Path(tempfile.mkdtemp(prefix="tune-", dir=context.scratch())),
        guest,
        None if limit is None else time.monotonic() + limit,
    )


def _reached(kind: str, target: Target, options: TuneOptions) -> Iterable[tuple[str, tuple[Route, ...]]]:
    profile = options.profile
    for precision, found in routes.routes_by_precision(kind, target, routes.edges()).items():
        if profile is None or not profile.refuses(target.name, precision):
            yield precision, found


def _constraints(judge: Judge, options: TuneOptions) -> Constraints:
    limits = Constraints(
        options.max_drop,
        max_size_bytes=options.max_size_bytes,
        max_latency_ms=options.max_latency_ms,
        max_float_share=options.max_float_share,
    )
    if not judge.labelled:
        return replace(limits, drop_name="output error", drop_unit="%")
    metric = TASK_METRICS[str(judge.source.metric)]
    limits = replace(limits, drop_name=f"{metric.name} drop")
    if metric.is_share:
        return limits
    if metric.higher_is_better:
        return replace(limits, drop_factor=1.0, drop_unit="")
    value = judge.source.metric_value or 0.0
    return replace(limits, max_drop=options.max_drop * value, drop_factor=1.0, drop_unit="")


def _judged_by(run: TuningSession) -> str:
    if run.judge.labelled and run.judge.test is not None:
        return f"{run.source.metric} on {run.judge.test.count} test samples"
    return (
        f"relative error of the outputs, 10^(-SQNR / 20), on {run.judge.golden.count} golden samples:"
        " there is no test set with labels"
    )


def _whole(run: TuningSession, precision: str) -> None:
    """The variant as every export makes it, but with its recipe beside it."""
    recipe = Recipe(run.target.name, precision)
    outcome = try_candidate(run, str(recipe), lambda: run_artifact(run, artifact_of(run, recipe)))
    if outcome is not None:
        run.add(run.judge.candidate(recipe, outcome, 1.0 if find_precision(precision).is_float else 0.0))


def _refinement_order() -> list[str]:
    """Return the precisions of which single layers are kept in float, in the order in which they are tried."""
    ranks = {item.name: item.refine_rank for item in precisions() if item.refine_rank is not None}
    return sorted(ranks, key=lambda name: ranks[name])


def _worth_refining(run: TuningSession, precision: str) -> bool:
    """Whether keeping layers in float can help: the whole precision is not accurate, but not too large either, and
    there is nothing yet that is both."""
    limit = run.constraints.max_size_bytes
    small = [item for item in run.tried if limit is None or item.size_bytes <= limit]
    own = next((item for item in run.tried if item.recipe == Recipe(run.target.name, precision)), None)
    if own is None or own.accurate(run.constraints) or own not in small:
        return False
    if precision not in run.target.selective:
        run.note(
            f"{run.target.name} keeps no single layers in float at {precision}: only whole precisions are compared"
        )
        return False
    return precision == _refinement_order()[0] or not any(item.accurate(run.constraints) for item in small)


def _refine(run: TuningSession, precision: str) -> None:
    base = float_base(run, precision)
    if base is None:
        return
    attempt = trial_runner(run, base)
    search = Search(attempt, run.judge, run.constraints, base.layers, run.progress, run.note, run.deadline_s)
    start = _calibrated(run, search, precision)
    if start is None or start.accurate(run.constraints):
        return
    grown = [run.add(item) for item in search.grow(start.recipe)]
    run.sensitivities = run.sensitivities or search.sensitivities
    if not grown:
        return
    chosen = _recalibrated(run, search, grown[-1])
    if chosen.accurate(run.constraints):
        chosen = run.add(search.prune(chosen))
    narrowed = search.narrow(chosen) if precision == "int8" else None
    if narrowed is not None:
        run.add(narrowed)


def _recalibrated(run: TuningSession, search: Search, item: Candidate) -> Candidate:
    """The candidate with the way of taking ranges that serves it best: what helped while the worst layers were
    quantized need not help without them."""
    found = [item]
    for method in run.target.calibrations if item.recipe.calibration else ():
        other = None
        if method != item.recipe.calibration and not run.late:
            other = search.candidate(replace(item.recipe, calibration=method))
        if other is not None:
            found.append(run.add(other))
    return max(
        found, key=lambda one: (one.accurate(run.constraints), _sqnr(one) - (_CLEAR_DB if one is not item else 0))
    )


def _calibrated(run: TuningSession, search: Search, precision: str) -> Candidate | None:
    """The precision with the ranges that serve it best on the golden samples, by way of taking them and by number."""
    recipe = Recipe(run.target.name, precision)
    if precision not in run.target.calibrated:
        return next((item for item in run.tried if item.recipe == recipe), None)
    pool = samples.load(run.source_folder / CALIBRATION_FILE, "calibration samples")
    usual = min(export.DEFAULT_CALIBRATION_SAMPLES, pool.count)
    found: list[Candidate] = []

    def look(method: Calibration, count: int) -> None:
        item = None if run.late else search.candidate(replace(recipe, calibration=method, calibration_samples=count))
        if item is not None:
            run.add(item)
            found.append(item)  # also where a whole precision is the same file

    for method in run.target.calibrations:
        look(method, usual)
    if not found:
        return None
    chosen = _clearly_best(found)
    for count in sorted({min(count, pool.count) for count in (*_COUNTS, pool.count)} - {usual}):
        look(chosen.recipe.calibration or "minmax", count)
    same = [item for item in found if item.recipe.calibration == chosen.recipe.calibration]
    return _clearly_best([chosen, *same])


def _clearly_best(found: Sequence[Candidate]) -> Candidate:
    """The one with the least noise, or the first where that is not clearly less: in a broken network it is luck."""
    best_one = max(found, key=_sqnr)
    return best_one if _sqnr(best_one) > _sqnr(found[0]) + _CLEAR_DB else found[0]


def _sqnr(item: Candidate) -> float:
    return float("inf") if item.sqnr_db is None else item.sqnr_db


def _measure(run: TuningSession) -> None:
    """Latencies of what meets all other constraints, where they decide anything; the smallest first."""
    if run.options.preference != "latency" and run.options.max_latency_ms is None and run.options.device == HOST:
        return
    others = replace(run.constraints, max_latency_ms=None)
    able = sorted((item for item in run.tried if item.meets(others)), key=lambda item: item.size_bytes)
    if len(able) > _MEASURED:
        run.note(f"only the {_MEASURED} smallest of {len(able)} candidates that are accurate enough were measured")
    for item in able[:_MEASURED]:
        latency = latency_of(run, item)
        run.tried[run.tried.index(item)] = replace(item, latency_ms=latency)


def _write(run: TuningSession, item: Candidate) -> Artifact:
    """Puts the candidate's artifact into the project, and validates it there."""
    made = artifact_of(run, item.recipe)
    final = run.context.project.artifact_folder(run.source.name, run.source.kind, item.recipe.variant.slug)
    with staged_folder(final) as staging:
        shutil.copytree(made.folder, staging, dirs_exist_ok=True)
    artifact = load_artifact(final)
    validate_one(run.context, artifact)
    return artifact
