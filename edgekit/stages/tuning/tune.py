"""The tune stage: finds the variant of a source model that best meets limits on accuracy, size and latency.

Whole precisions are tried first, then those of the float network with scaled channels. If a precision is small enough
but not accurate enough, the calibration method and the number of calibration samples are varied, then single layers are
kept in float (`search.py`), then int16 activations replace float where possible. Latency is measured for candidates
that are small and accurate enough. All candidates are written to a scratch folder (`session.py`). Only the winner is
written to the project, as the artifact that `edgekit export --recipe` would write.
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
from edgekit.core.errors import InputError, MissingDependency, StepError
from edgekit.core.numerics.applicable_tolerances import tolerances_for_precision
from edgekit.core.numerics.metrics import TASK_METRICS
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import load_source
from edgekit.core.records.tuning import Candidate, Constraints, LayerSensitivity, Tuning, best, nearest
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.precisions import find_precision, precisions
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.core.values.specs import HOST, Route, Variant
from edgekit.core.values.synthetic_samples import SYNTHETIC_WORTH
from edgekit.devices.emulation import emulator
from edgekit.stages.benchmark.bench import connect_devices
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, export_plans, routes
from edgekit.stages.conversion.export_plans import ExportPlan, ExportSettings
from edgekit.stages.conversion.repair import MIGRATIONS
from edgekit.stages.tuning.search import Judge, Search
from edgekit.stages.tuning.session import (
    TuneOptions,
    TuningSession,
    convert_float_base,
    export_candidate,
    measure_latency,
    run_artifact,
    trial_runner,
    try_candidate,
)
from edgekit.stages.validation.artifact_tolerances import own_tolerances
from edgekit.stages.validation.validate import validate_one

__all__ = ["TuneOptions", "tune"]

# The numbers of calibration samples to try, in addition to all samples.
_SAMPLE_COUNTS = (50, export.DEFAULT_CALIBRATION_SAMPLES)
# A calibration is better than another one if it gains at least this much: smaller differences are chance.
_CLEAR_GAIN_DB = 1.0
# The largest number of candidates to measure, the smallest files first: a measurement takes seconds.
_MAX_MEASURED = 8


def tune(
    context: Context, model: str, kind: str, target: Target, settings: ExportSettings, options: TuneOptions
) -> tuple[Tuning, Artifact | None]:
    """Search for the best variant and write it as an artifact; train the source model first if it is missing.

    Args:
        context: The project and its workers.
        model: The name of the model.
        kind: The kind of the source model, such as `keras`.
        target: The target.
        settings: The settings of the exports.
        options: The options of the search.

    Returns:
        The result of the search, and the artifact that was written, or None.

    Raises:
        InputError: No variant of the target can be converted from the source model.
        MissingDependency: A package or the emulation of the device is missing.
        StepError: Training or the export of the winner fails.
    """
    started = time.monotonic()
    run = _prepare(context, model, kind, target, settings, options)
    for precision in run.plans:
        if not run.tried or not run.late:  # at least one candidate, even with a very short time limit
            _try_whole_precision(run, precision)
    if not run.tried:
        raise InputError(f"{model}/{kind} could not be converted to {target.name}: {'; '.join(run.notes)}")
    for precision in _refinement_order():
        if precision in run.plans and not run.late and _worth_scaling(run, precision):
            _try_scaled(run, precision)
    for precision in _refinement_order():
        if precision in run.plans and not run.late and _worth_refining(run, precision):
            _refine(run, precision)
    _measure(run)
    winner = best((candidate for candidate in run.tried if candidate.meets(run.constraints)), options.preference)
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
        judged_by=_criterion_text(run),
        device=options.device,
        tier=options.tier,
        stopped=run.stopped,
        seconds=time.monotonic() - started,
        notes=tuple(run.notes),
    )
    return tuning, _write_artifact(run, close) if winner is not None or options.keep_best else None


def measure_sensitivity(context: Context, artifact: Artifact) -> tuple[LayerSensitivity, ...]:
    """Measure how much each layer of a quantized artifact contributes to the error of its outputs.

    The artifact is converted again from its source model, with each layer group in float in turn.

    Args:
        context: The project and its workers.
        artifact: The quantized artifact.

    Returns:
        The sensitivities, the largest gain first.

    Raises:
        InputError: The target cannot keep single layers in float, or the source model is missing.
        MissingDependency: A package of the source or the target is missing.
        StepError: A worker fails.
    """
    manifest = artifact.manifest
    target = routes.load_target(manifest.target)
    if manifest.precision not in target.selective:
        supported = ", ".join(target.selective) or "no precision"
        raise InputError(f"{manifest.variant}: {target.name} keeps single layers in float at {supported}")
    count = (manifest.calibration or {}).get("samples")
    settings = ExportSettings(calibration_samples=count)
    run = _prepare(context, manifest.model, manifest.source["kind"], target, settings, TuneOptions())
    base = convert_float_base(run, manifest.precision)
    if base is None:
        raise InputError(f"{artifact.label}: its float32 counterpart could not be converted: {'; '.join(run.notes)}")
    attempt = trial_runner(run, base)
    search = Search(attempt, run.judge, run.constraints, base.layers, run.progress, run.note)
    return tuple(search.measure_sensitivity(Recipe(target.name, manifest.precision)))


def _prepare(
    context: Context, model: str, kind: str, target: Target, settings: ExportSettings, options: TuneOptions
) -> TuningSession:
    guest = None
    if options.tier == "emulated" and options.profile is not None:
        guest = emulator.open_guest(options.device, options.profile)
    connect_devices(context, [options.device])
    plans = [
        ExportPlan(model, kind, Variant(target.name, precision), precision_routes)
        for precision, precision_routes in _supported_routes(kind, target, options)
    ]
    if not plans:
        raise InputError(f"{options.device} runs no precision of {target.name} that {kind} models convert to")
    trained = export_plans.train_missing(context, plans)
    if not trained:
        raise InputError(f"{model}/{kind} could not be trained")
    feasible = export_plans.feasible_plans(context, trained, settings, targets_named=False)
    folder = context.project.source_folder(model, kind)
    source = load_source(folder)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    test = samples.load(folder / TEST_FILE, "test samples") if (folder / TEST_FILE).is_file() else None

    def tolerances(precision: str) -> dict[str, object]:
        of_model = own_tolerances(context, model, precision)
        return {
            name: tolerances_for_precision(precision, of_model, source.rounding.get(name)) for name in golden.outputs
        }

    judge = Judge(source, golden, test, tolerances)  # type: ignore[arg-type]
    limit = options.time_limit_s
    return TuningSession(
        context,
        source,
        folder,
        target,
        {plan.variant.precision: plan for plan in feasible},
        settings,
        options,
        _constraints(judge, options),
        judge,
        Path(tempfile.mkdtemp(prefix="tune-", dir=context.scratch())),
        guest,
        None if limit is None else time.monotonic() + limit,
    )


def _supported_routes(kind: str, target: Target, options: TuneOptions) -> Iterable[tuple[str, tuple[Route, ...]]]:
    """Yield the default precisions that the device runs, with their routes."""
    profile = options.profile
    for precision, precision_routes in routes.routes_by_precision(kind, target, routes.edges()).items():
        if precision in target.on_request:
            continue
        if profile is None or not profile.refusal(target.name, precision):
            yield precision, precision_routes


def _constraints(judge: Judge, options: TuneOptions) -> Constraints:
    """Return the limits, with the drop in the unit of the task metric or else as the relative error of the outputs."""
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


def _criterion_text(run: TuningSession) -> str:
    """Return what candidates are judged by and on which samples."""
    if run.judge.labelled and run.judge.test is not None:
        return f"{run.source.metric} on {run.judge.test.count} test samples"
    synthetic = f" that are synthetic ({SYNTHETIC_WORTH})" if run.source.has_synthetic_golden else ""
    return (
        f"relative error of the outputs, 10^(-SQNR / 20), on {run.judge.golden.count} golden samples{synthetic}:"
        " there is no test set with labels"
    )


def _try_whole_precision(run: TuningSession, precision: str) -> None:
    """Try a precision with the default recipe, as a plain export does."""
    recipe = Recipe(run.target.name, precision)
    outcome = try_candidate(run, str(recipe), lambda: run_artifact(run, export_candidate(run, recipe)))
    if outcome is not None:
        run.add(run.judge.candidate(recipe, outcome, 1.0 if find_precision(precision).is_float else 0.0))


def _worth_scaling(run: TuningSession, precision: str) -> bool:
    """Return whether scaled channels can help: the precision is not accurate enough, and there are samples for it."""
    whole = next((entry for entry in run.tried if entry.recipe == Recipe(run.target.name, precision)), None)
    samples_exist = (run.source_folder / CALIBRATION_FILE).is_file()
    return samples_exist and whole is not None and not whole.accurate(run.constraints)


def _try_scaled(run: TuningSession, precision: str) -> None:
    """Try a precision of the float network with scaled channels, which computes the same."""
    for migration in MIGRATIONS:
        recipe = Recipe(run.target.name, precision, migration=migration)
        try:
            outcome = run_artifact(run, export_candidate(run, recipe))
        except (InputError, MissingDependency, StepError) as error:  # most often: nothing can be scaled
            run.note(f"{recipe}: {error}")
            return
        if run.add(run.judge.candidate(recipe, outcome)).accurate(run.constraints):
            return


def _refinement_order() -> list[str]:
    """Return the precisions that are refined by layers in float, in the order in which they are tried."""
    ranks = {precision.name: precision.refine_rank for precision in precisions() if precision.refine_rank is not None}
    return sorted(ranks, key=lambda name: ranks[name])


def _worth_refining(run: TuningSession, precision: str) -> bool:
    """Return whether layers in float can help.

    They can if the whole precision is small but not accurate enough, and no candidate yet is both. The first precision
    of the refinement order is refined in any case, since it has the smallest files.
    """
    limit = run.constraints.max_size_bytes
    small = [candidate for candidate in run.tried if limit is None or candidate.size_bytes <= limit]
    whole = next((entry for entry in run.tried if entry.recipe == Recipe(run.target.name, precision)), None)
    if whole is None or whole.accurate(run.constraints) or whole not in small:
        return False
    if any(entry.recipe.precision == precision and entry.accurate(run.constraints) for entry in small):
        return False
    if precision not in run.target.selective:
        run.note(
            f"{run.target.name} keeps no single layers in float at {precision}: only whole precisions are compared"
        )
        return False
    return precision == _refinement_order()[0] or not any(entry.accurate(run.constraints) for entry in small)


def _refine(run: TuningSession, precision: str) -> None:
    base = convert_float_base(run, precision)
    if base is None:
        return
    attempt = trial_runner(run, base)
    search = Search(attempt, run.judge, run.constraints, base.layers, run.progress, run.note, run.deadline_s)
    start = _best_calibration(run, search, precision)
    if start is None or start.accurate(run.constraints):
        return
    grown = [run.add(candidate) for candidate in search.grow(start.recipe)]
    run.sensitivities = run.sensitivities or search.sensitivities
    if not grown:
        return
    refined = _recalibrate(run, search, grown[-1])
    if refined.accurate(run.constraints):
        refined = run.add(search.prune(refined))
    narrowed = search.narrow(refined) if precision == "int8" else None
    if narrowed is not None:
        run.add(narrowed)


def _recalibrate(run: TuningSession, search: Search, candidate: Candidate) -> Candidate:
    """Try the other calibration methods again: with the worst layers in float, another one may be the best."""
    candidates = [candidate]
    for method in run.target.calibrations if candidate.recipe.calibration else ():
        alternative = None
        if method != candidate.recipe.calibration and not run.late:
            alternative = search.candidate(replace(candidate.recipe, calibration=method))
        if alternative is not None:
            candidates.append(run.add(alternative))

    def rank(entry: Candidate) -> tuple[bool, float]:
        handicap_db = _CLEAR_GAIN_DB if entry is not candidate else 0
        return entry.accurate(run.constraints), _sqnr_db(entry) - handicap_db

    return max(candidates, key=rank)


def _best_calibration(run: TuningSession, search: Search, precision: str) -> Candidate | None:
    """Return the candidate with the best calibration method and number of samples, by SQNR on the golden samples."""
    recipe = Recipe(run.target.name, precision)
    if precision not in run.target.calibrated:
        return next((candidate for candidate in run.tried if candidate.recipe == recipe), None)
    pool = samples.load(run.source_folder / CALIBRATION_FILE, "calibration samples")
    default_count = min(export.DEFAULT_CALIBRATION_SAMPLES, pool.count)
    candidates: list[Candidate] = []

    def try_calibration(method: Calibration, count: int) -> None:
        calibrated = replace(recipe, calibration=method, calibration_samples=count)
        candidate = None if run.late else search.candidate(calibrated)
        if candidate is not None:
            run.add(candidate)
            candidates.append(candidate)  # even if a whole precision produced the same file: the recipe matters here

    for method in run.target.calibrations:
        try_calibration(method, default_count)
    if not candidates:
        return None
    best_method = _clearly_best(candidates)
    for count in sorted({min(count, pool.count) for count in (*_SAMPLE_COUNTS, pool.count)} - {default_count}):
        try_calibration(best_method.recipe.calibration or "minmax", count)
    same_method = [entry for entry in candidates if entry.recipe.calibration == best_method.recipe.calibration]
    return _clearly_best([best_method, *same_method])


def _clearly_best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest SQNR, or the first one if the difference is small enough to be chance."""
    highest = max(candidates, key=_sqnr_db)
    return highest if _sqnr_db(highest) > _sqnr_db(candidates[0]) + _CLEAR_GAIN_DB else candidates[0]


def _sqnr_db(candidate: Candidate) -> float:
    return float("inf") if candidate.sqnr_db is None else candidate.sqnr_db


def _measure(run: TuningSession) -> None:
    """Measure the candidates that meet all other limits, the smallest first, if latency matters for the choice."""
    if run.options.preference != "latency" and run.options.max_latency_ms is None and run.options.device == HOST:
        return
    without_latency = replace(run.constraints, max_latency_ms=None)
    eligible = [candidate for candidate in run.tried if candidate.meets(without_latency)]
    eligible.sort(key=lambda candidate: candidate.size_bytes)
    if len(eligible) > _MAX_MEASURED:
        run.note(f"measured only the {_MAX_MEASURED} smallest of {len(eligible)} candidates that meet the other limits")
    for candidate in eligible[:_MAX_MEASURED]:
        latency = measure_latency(run, candidate)
        run.tried[run.tried.index(candidate)] = replace(candidate, latency_ms=latency)


def _write_artifact(run: TuningSession, candidate: Candidate) -> Artifact:
    """Write a candidate's artifact to the project and validate it there."""
    scratch = export_candidate(run, candidate.recipe)
    final = run.context.project.artifact_folder(run.source.name, run.source.kind, candidate.recipe.variant.slug)
    with staged_folder(final) as staging:
        shutil.copytree(scratch.folder, staging, dirs_exist_ok=True)
    artifact = load_artifact(final)
    validate_one(run.context, artifact)
    return artifact
