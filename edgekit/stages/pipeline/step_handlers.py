"""Carrying out one step of the graph: the stage's function with the step's values, and the files that it left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.config.project import HOST, is_code_reference
from edgekit.core.build.graph import Graph, Step
from edgekit.core.environment.atomic_files import write_json, write_text
from edgekit.core.errors import EXIT_CHECK_FAILED, EXIT_OK, InputError
from edgekit.core.events import Noted
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import emulation_file, load_emulation
from edgekit.core.records.report import Report
from edgekit.core.values.budgets import Budget
from edgekit.core.values.specs import Route, Variant
from edgekit.devices.emulation import emulator
from edgekit.devices.profile import load_profile
from edgekit.stages.benchmark.bench import BenchOptions, bench_one
from edgekit.stages.benchmark.bench import summary as bench_summary
from edgekit.stages.benchmark.device_fit import why_exceeds_device
from edgekit.stages.benchmark.emulated_bench import EmulationOptions, emulate_one
from edgekit.stages.benchmark.emulated_bench import summary as predict_summary
from edgekit.stages.context import Context
from edgekit.stages.conversion import export as exporting
from edgekit.stages.gates import check as checking
from edgekit.stages.gates import gather_report
from edgekit.stages.models import model_refs
from edgekit.stages.models.train import TrainOptions, train_one
from edgekit.stages.models.train import summary as train_summary
from edgekit.stages.tracking.settings import tracking_of
from edgekit.stages.tracking.track import track
from edgekit.stages.validation.diff import layers_one
from edgekit.stages.validation.diff import summary as diff_summary
from edgekit.stages.validation.validate import FLIPS_FILE, validate_on, validate_one
from edgekit.stages.validation.validate import summary as validate_summary

CHECK_SCHEMA = 1
Render = Callable[[str, Report], str]


@dataclass(frozen=True)
class StepOutput:
    """A step that was carried out: its result in a few words, 1 where a check failed, and the files it wrote.

    Of a step that was done elsewhere, also the seconds that it took there, and how many of them it had no core.
    """

    detail: str
    files: tuple[Path, ...]
    code: int = EXIT_OK
    seconds: float | None = None
    cpu_wait_s: float = 0.0


@dataclass(frozen=True)
class StepContext:
    """A step with what it needs: the graph it is of, which steps before it failed, and what turns a report into text
    of a format."""

    context: Context
    graph: Graph
    step: Step
    failed: Collection[str]
    render: Render

    def path(self, text: str) -> Path:
        """A path of the graph, or of edgekit.toml."""
        return self.context.project.root / Path(text).expanduser()

    @property
    def values(self) -> Mapping[str, Any]:
        return self.step.values

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.step.values["options"])
        return found

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.step.arguments


def execute_step(job: StepContext) -> StepOutput:
    """Does the step. Raises what its stage raises."""
    if not job.step.folder:
        job.path(job.step.output).unlink(missing_ok=True)  # what it said before is no longer true
    return STEP_HANDLERS[job.step.kind](job)


def _all_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def _train(job: StepContext) -> StepOutput:
    options = job.options
    model, kind = job.arguments["model"], job.arguments["kind"]
    data = options.pop("data", None)
    if data is not None and job.path(data).exists():
        data = str(job.path(data))
    chosen = partial(TrainOptions, data=data, **options)
    train = partial(train_one, job.context, model, kind)
    if job.context.project.checkpoint_folder(model, kind).exists():
        try:
            source = train(chosen(resume=True))
        except InputError as error:  # of other options or code, or damaged
            job.context.emit(Noted(job.step.name, f"starting anew: {error}"))
            source = train(chosen())
    else:
        source = train(chosen())
    return StepOutput(train_summary(source), _all_in(job.path(job.step.folder)))


def _take_in(job: StepContext) -> StepOutput:
    options = job.options
    text = options["path"]
    own = model_refs.UserModelOptions(
        name=job.arguments["model"],
        weights=job.path(options["weights"]) if "weights" in options else None,
        inputs=tuple(options["inputs"]),
        sample=job.path(options["sample"]) if "sample" in options else None,
        calibration=_from(job, options["calibration"]) if "calibration" in options else None,
        sizes=options["dims"],
        image_range=tuple(options["image_range"]),
    )
    source = model_refs.import_model(job.context, _from(job, text), job.arguments["framework"], own)
    return StepOutput(f"{source.parameters:,} parameters", _all_in(job.path(job.step.folder)))


def _from(job: StepContext, text: str) -> str:
    """A path, alone or before `:function`, from the root; the name of a module as it is."""
    where, _, function = text.rpartition(":")
    if where.endswith(".py"):
        return f"{job.path(where)}:{function}"
    return text if is_code_reference(text) else str(job.path(text))


def _export(job: StepContext) -> StepOutput:
    options = job.options
    plan = exporting.ExportPlan(
        job.arguments["model"],
        job.arguments["kind"],
        Variant.parse(job.arguments["variant"]),
        tuple(Route(tuple(steps)) for steps in job.values["routes"]),
    )
    settings = exporting.ExportSettings(
        options.get("calibration_samples"),
        options["dims"],
        options.get("layout"),
        {name: options[name] for name in ("opset", "ir_version") if name in options},
    )
    artifact = exporting.export_one(job.context, plan, settings)
    return StepOutput(exporting.summary(artifact), _all_in(job.path(job.step.folder)))


def _artifact(job: StepContext) -> Artifact:
    return load_artifact(job.path(job.arguments["folder"]))


def _validate(job: StepContext) -> StepOutput:
    artifact, device = _artifact(job), job.arguments.get("device")
    if device is not None:
        guest = emulator.open_guest(device, load_profile(job.context.project.device_file(device)))
        validation = validate_on(job.context, artifact, guest, emulator.TIMEOUT_S)
        return StepOutput(validate_summary(validation), (job.path(job.step.output),))
    validation = validate_one(job.context, artifact)
    flips = artifact.folder / FLIPS_FILE
    files = (job.path(job.step.output), *((flips,) if flips.is_file() else ()))
    return StepOutput(validate_summary(validation), files)


def _diff(job: StepContext) -> StepOutput:
    return StepOutput(diff_summary(layers_one(job.context, _artifact(job))), (job.path(job.step.output),))


def _emulate(job: StepContext) -> StepOutput:
    device, options = job.arguments["device"], EmulationOptions(**job.options)
    profile, artifact = load_profile(job.context.project.device_file(device)), _artifact(job)
    narrow = why_exceeds_device(job.context, artifact, profile)
    if narrow is not None:  # it is not run; the bench makes the run fail
        return StepOutput(f"{artifact.label} does not fit {device}: {narrow}", ())
    emulation = emulate_one(job.context, artifact, emulator.open_guest(device, profile), options)
    return StepOutput(predict_summary(emulation), (job.path(job.step.output),))


def _bench(job: StepContext) -> StepOutput:
    device, options = job.arguments["device"], job.options
    profile = None if device == HOST else load_profile(job.context.project.device_file(device))
    artifact = _artifact(job)
    narrow = why_exceeds_device(job.context, artifact, profile)
    if narrow is not None:  # known before it is run: nothing is measured, and the run says that it does not fit
        return StepOutput(f"{artifact.label} does not fit {device}: {narrow}", (), EXIT_CHECK_FAILED)
    counted = job.arguments["counted"]
    emulated = load_emulation(artifact.folder / emulation_file(device)).emulated if counted else None
    measured = bench_one(job.context, artifact, device, profile, BenchOptions(**options), emulated)
    return StepOutput(bench_summary(measured), (job.path(job.step.output),))


def _check(job: StepContext) -> StepOutput:
    budgets = [Budget(**item) for item in job.values["budgets"]]
    where = job.arguments["devices"], job.arguments["emulated"]
    verdicts = checking.check_one(job.context, _artifact(job), budgets, *where)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    data = {
        "schema_version": CHECK_SCHEMA,
        "passed": not failed,
        "verdicts": [{**asdict(verdict), "sentence": verdict.sentence} for verdict in verdicts],
    }
    write_json(job.path(job.step.output), data)
    detail = "; ".join(verdict.sentence for verdict in failed) or f"{len(verdicts)} rules kept"
    return StepOutput(detail, (job.path(job.step.output),), EXIT_CHECK_FAILED if failed else EXIT_OK)


def _gathered(job: StepContext) -> Report:
    """What the steps before it found out."""
    rows = []
    for item in job.arguments["artifacts"]:
        export, check = (f"{kind} {item['model']}/{item['kind']} {item['variant']}" for kind in ("export", "check"))
        if export not in job.failed:
            judged = job.graph.by_name.get(check)  # only some of the steps may have been asked for
            budgets = [Budget(**budget) for budget in judged.values["budgets"]] if judged else []
            artifact = load_artifact(job.path(item["folder"]))
            rows.append(
                gather_report.row(
                    job.context, artifact, budgets, item["devices"], item["emulated"], layers=item["layers"]
                )
            )
    return gather_report.assemble(job.context, rows)


def _report(job: StepContext) -> StepOutput:
    gathered = _gathered(job)
    text = job.render(job.values["format"], gathered)
    try:
        write_text(job.path(job.step.output), text)
    except InputError as error:
        raise InputError(f"{job.arguments['where']}: {error}") from None
    return StepOutput(f"{len(gathered.rows)} artifacts", (job.path(job.step.output),))


def _track(job: StepContext) -> StepOutput:
    tracked = track(job.context, _gathered(job), tracking_of(job.step), job.render)
    write_json(job.path(job.step.output), asdict(tracked))
    return StepOutput(tracked.summary, (job.path(job.step.output),))


STEP_HANDLERS: Mapping[str, Callable[[StepContext], StepOutput]] = {
    "train": _train,
    "take in": _take_in,
    "export": _export,
    "validate": _validate,
    "diff": _diff,
    "emulate": _emulate,
    "bench": _bench,
    "check": _check,
    "report": _report,
    "track": _track,
}
