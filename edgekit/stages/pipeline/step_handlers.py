"""Executes single steps: the handler of a step's kind calls the stage's function with the step's values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from edgekit.config.device_profile import DeviceProfile
from edgekit.config.project import is_code_reference
from edgekit.contracts.executor import EXECUTORS
from edgekit.core.build.graph import Graph, Step, StepKind
from edgekit.core.environment.atomic_files import write_json, write_output
from edgekit.core.errors import EXIT_CHECK_FAILED, EXIT_OK, InputError
from edgekit.core.events import NoteEvent
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency, emulation_file, load_emulation
from edgekit.core.records.report import Report
from edgekit.core.values.budgets import Budget
from edgekit.core.values.quantization_form import FORM_OPTIONS, QuantizationForm
from edgekit.core.values.specs import HOST, Route, Variant
from edgekit.core.values.synthetic_samples import SYNTHETIC
from edgekit.devices.boards.places import find_place, measuring_executor
from edgekit.devices.emulation import emulator
from edgekit.stages.benchmark.bench import BenchOptions, bench_one
from edgekit.stages.benchmark.bench import summary as bench_summary
from edgekit.stages.benchmark.device_fit import why_exceeds_device
from edgekit.stages.benchmark.emulated_bench import EmulationOptions, emulate_one
from edgekit.stages.benchmark.emulated_bench import summary as emulation_summary
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, export_plans
from edgekit.stages.gates import gather_report
from edgekit.stages.gates.check import check_one
from edgekit.stages.models import model_refs
from edgekit.stages.models.train import TrainOptions, train_one
from edgekit.stages.models.train import summary as train_summary
from edgekit.stages.tracking.settings import tracking_of
from edgekit.stages.tracking.track import track
from edgekit.stages.validation.diff import layers_one
from edgekit.stages.validation.diff import summary as diff_summary
from edgekit.stages.validation.drift import FLIPS_FILE
from edgekit.stages.validation.validate import summary as validate_summary
from edgekit.stages.validation.validate import validate_one
from edgekit.stages.validation.validate_on_devices import EMULATED, validate_on

# The `schema_version` of check.json.
CHECK_SCHEMA = 1
Render = Callable[[str, Report], str]


@dataclass(frozen=True)
class StepOutput:
    """The result of a step that was executed.

    Attributes:
        detail: The result in a few words.
        files: The files that the step wrote.
        code: 1 where a check failed, else 0.
        seconds: For a remote step: its duration on the other host.
        cpu_wait_s: For a remote step: the part of these seconds in which it was ready to run but had no core.
    """

    detail: str
    files: tuple[Path, ...]
    code: int = EXIT_OK
    seconds: float | None = None
    cpu_wait_s: float = 0.0


@dataclass(frozen=True)
class StepContext:
    """A step with what its execution needs.

    Attributes:
        context: The project, the workers, and the listener.
        graph: The graph that the step belongs to.
        step: The step.
        failed: The names of the steps before it that failed.
        render: Turns a report into the text of a format.
    """

    context: Context
    graph: Graph
    step: Step
    failed: Collection[str]
    render: Render

    def path(self, text: str) -> Path:
        """Return a path of the graph or of edgekit.toml as an absolute path."""
        return self.context.project.root / Path(text).expanduser()

    @property
    def values(self) -> Mapping[str, Any]:
        """The values that the step's result depends on, beside files."""
        return self.step.values

    @property
    def options(self) -> dict[str, Any]:
        """The step's options, as a copy."""
        return dict(self.step.values["options"])

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The values that the execution needs and the result does not depend on."""
        return self.step.arguments

    @property
    def output(self) -> Path:
        """The file that exists once the step is completed."""
        return self.path(self.step.output)

    @property
    def files_in_folder(self) -> tuple[Path, ...]:
        """Every file in the step's folder."""
        return tuple(sorted(path for path in self.path(self.step.folder).rglob("*") if path.is_file()))

    def load_artifact(self) -> Artifact:
        """Load the artifact that the step processes.

        Returns:
            The artifact.

        Raises:
            InputError: The artifact is missing or damaged.
        """
        return load_artifact(self.path(self.arguments["folder"]))

    def profile(self, device: str) -> DeviceProfile | None:
        """Load a device's profile.

        Args:
            device: The device's name.

        Returns:
            The profile; None for a board without one.

        Raises:
            InputError: The device is unknown, or its profile is invalid.
        """
        return find_place(self.context.project, device).profile


class StepHandler(ABC):
    """Executes the steps of one kind."""

    kind: ClassVar[StepKind]

    @abstractmethod
    def execute(self, step: StepContext) -> StepOutput:
        """Execute the step.

        Args:
            step: The step with its context.

        Returns:
            The step's result.

        Raises:
            EdgekitError: Any error of the stage.
        """


class TrainHandler(StepHandler):
    """Trains a reference model, and resumes from its latest checkpoint if that is usable."""

    kind = StepKind.TRAIN

    def execute(self, step: StepContext) -> StepOutput:
        options = step.options
        model, framework = step.arguments["model"], step.arguments["kind"]
        data = options.pop("data", None)
        if data is not None and step.path(data).exists():
            data = str(step.path(data))
        train_options = partial(TrainOptions, data=data, **options)
        train = partial(train_one, step.context, model, framework)
        if step.context.project.checkpoint_folder(model, framework).exists():
            try:
                source = train(train_options(resume=True))
            except InputError as error:  # the checkpoint is damaged, or was written with other options or code
                step.context.emit(NoteEvent(step.step.name, f"starting from scratch: {error}"))
                source = train(train_options())
        else:
            source = train(train_options())
        return StepOutput(train_summary(source), step.files_in_folder)


class ImportHandler(StepHandler):
    """Imports a user's model as a source."""

    kind = StepKind.IMPORT

    def execute(self, step: StepContext) -> StepOutput:
        options = step.options
        user_options = model_refs.UserModelOptions(
            name=step.arguments["model"],
            weights=step.path(options["weights"]) if "weights" in options else None,
            inputs=tuple(options["inputs"]),
            sample=step.path(options["sample"]) if "sample" in options else None,
            calibration=_calibration(step),
            sizes=options["dims"],
            image_range=tuple(options["image_range"]),
            signature=options.get("signature"),
            fixed=options["fixed"],
            preprocess=tuple(options["preprocess"]),
        )
        reference = _from_root(step, options["path"])
        source = model_refs.import_model(step.context, reference, step.arguments["framework"], user_options)
        return StepOutput(model_refs.parameter_count(source), step.files_in_folder)


def _calibration(step: StepContext) -> str | None:
    text = step.options.get("calibration")
    return text if text in (None, SYNTHETIC) else _from_root(step, text)


def _from_root(step: StepContext, text: str) -> str:
    """Resolve a path, alone or before `:function`, from the project's root; leave the name of a module unchanged."""
    path, _, function = text.rpartition(":")
    if path.endswith(".py"):
        return f"{step.path(path)}:{function}"
    return text if is_code_reference(text) else str(step.path(text))


class ExportHandler(StepHandler):
    """Converts a source to one variant."""

    kind = StepKind.EXPORT

    def execute(self, step: StepContext) -> StepOutput:
        options = step.options
        plan = export_plans.ExportPlan(
            step.arguments["model"],
            step.arguments["kind"],
            Variant.parse(step.arguments["variant"]),
            tuple(Route(tuple(route)) for route in step.values["routes"]),
        )
        settings = export_plans.ExportSettings(
            options.get("calibration_samples"),
            options["dims"],
            options.get("layout"),
            {name: options[name] for name in ("opset", "ir_version") if name in options},
            form=QuantizationForm.from_dict({name: options[name] for name in FORM_OPTIONS if name in options}),
        )
        artifact = export.export_one(step.context, plan, settings)
        return StepOutput(export.summary(artifact), step.files_in_folder)


class ValidateHandler(StepHandler):
    """Validates an artifact on this host, or on a device's emulated core."""

    kind = StepKind.VALIDATE

    def execute(self, step: StepContext) -> StepOutput:
        artifact, device = step.load_artifact(), step.arguments.get("device")
        if device is not None:
            executor = EXECUTORS.load(measuring_executor(device) or EMULATED)
            place = find_place(step.context.project, device)
            validation = validate_on(step.context, artifact, executor, place, emulator.TIMEOUT_S)
            return StepOutput(validate_summary(validation), (step.output,))
        validation = validate_one(step.context, artifact)
        flips = artifact.folder / FLIPS_FILE
        files = (step.output, *((flips,) if flips.is_file() else ()))
        return StepOutput(validate_summary(validation), files)


class DiffHandler(StepHandler):
    """Measures the error of an artifact layer by layer."""

    kind = StepKind.DIFF

    def execute(self, step: StepContext) -> StepOutput:
        layers = layers_one(step.context, step.load_artifact())
        return StepOutput(diff_summary(layers), (step.output,))


class EmulateHandler(StepHandler):
    """Counts an inference on a device's emulated core."""

    kind = StepKind.EMULATE

    def execute(self, step: StepContext) -> StepOutput:
        device, options = step.arguments["device"], EmulationOptions(**step.options)
        profile, artifact = step.profile(device), step.load_artifact()
        assert profile is not None  # only devices whose profile has an emulation are counted
        shortage = why_exceeds_device(step.context, artifact, profile)
        if shortage is not None:  # nothing is counted here; the bench step fails the run
            return StepOutput(f"{artifact.label} does not fit {device}: {shortage}", ())
        record = emulate_one(step.context, artifact, emulator.open_guest(device, profile), options)
        return StepOutput(emulation_summary(record), (step.output,))


class BenchHandler(StepHandler):
    """Measures an artifact under a device profile."""

    kind = StepKind.BENCH

    def execute(self, step: StepContext) -> StepOutput:
        device = step.arguments["device"]
        profile = None if device == HOST else step.profile(device)
        artifact = step.load_artifact()
        shortage = why_exceeds_device(step.context, artifact, profile)
        if shortage is not None:  # nothing is measured: a model that does not fit the device fails the run
            return StepOutput(f"{artifact.label} does not fit {device}: {shortage}", (), EXIT_CHECK_FAILED)
        counted = step.arguments["counted"]
        emulated = _read_emulation(artifact, device) if counted else None
        measurement = bench_one(step.context, artifact, device, profile, BenchOptions(**step.options), emulated)
        return StepOutput(bench_summary(measurement), (step.output,))


def _read_emulation(artifact: Artifact, device: str) -> EmulatedLatency:
    path = artifact.folder / emulation_file(device)
    record = load_emulation(path)
    if (record.artifact_sha256, record.device) != (artifact.manifest.sha256, device):
        raise InputError(f"{path}: this emulation is of another model file or device; run: edgekit run --force")
    return record.emulated


class CheckHandler(StepHandler):
    """Evaluates an artifact's results against the budgets."""

    kind = StepKind.CHECK

    def execute(self, step: StepContext) -> StepOutput:
        budgets = [Budget(**budget) for budget in step.values["budgets"]]
        devices, emulated = step.arguments["devices"], step.arguments["emulated"]
        verdicts = check_one(step.context, step.load_artifact(), budgets, devices, emulated)
        failed = [verdict for verdict in verdicts if not verdict.passed]
        data = {
            "schema_version": CHECK_SCHEMA,
            "passed": not failed,
            "verdicts": [{**asdict(verdict), "sentence": verdict.sentence} for verdict in verdicts],
        }
        write_json(step.output, data)
        detail = "; ".join(verdict.sentence for verdict in failed) or f"{len(verdicts)} rules passed"
        return StepOutput(detail, (step.output,), EXIT_CHECK_FAILED if failed else EXIT_OK)


class ReportHandler(StepHandler):
    """Writes a report of the results of the steps before it."""

    kind = StepKind.REPORT

    def execute(self, step: StepContext) -> StepOutput:
        report = _gather(step)
        text = step.render(step.values["format"], report)
        try:
            write_output(step.output, text)
        except InputError as error:
            raise InputError(f"{step.arguments['where']}: {error}") from None
        return StepOutput(f"{len(report.rows)} artifacts", (step.output,))


class TrackHandler(StepHandler):
    """Logs the results to an MLflow tracking server."""

    kind = StepKind.TRACK

    def execute(self, step: StepContext) -> StepOutput:
        result = track(step.context, _gather(step), tracking_of(step.step), step.render)
        write_json(step.output, asdict(result))
        return StepOutput(result.summary, (step.output,))


def _gather(step: StepContext) -> Report:
    """Gather the report of the artifacts whose export did not fail."""
    rows = []
    for entry in step.arguments["artifacts"]:
        identity = {key: entry[key] for key in ("model", "kind", "variant")}
        export_step, check_step = (step.graph.find(kind, **identity) for kind in (StepKind.EXPORT, StepKind.CHECK))
        if export_step is not None and export_step.name in step.failed:
            continue
        # Without a check step there are no budgets: the user may have selected only some of the steps.
        budgets = [Budget(**budget) for budget in check_step.values["budgets"]] if check_step else []
        artifact = load_artifact(step.path(entry["folder"]))
        rows.append(
            gather_report.row(
                step.context, artifact, budgets, entry["devices"], entry["emulated"], layers=entry["layers"]
            )
        )
    return gather_report.assemble(step.context, rows)


STEP_HANDLERS: Mapping[StepKind, StepHandler] = {
    handler.kind: handler
    for handler in (
        TrainHandler(),
        ImportHandler(),
        ExportHandler(),
        ValidateHandler(),
        DiffHandler(),
        EmulateHandler(),
        BenchHandler(),
        CheckHandler(),
        ReportHandler(),
        TrackHandler(),
    )
}


def execute_step(step: StepContext) -> StepOutput:
    """Execute the step with the handler of its kind.

    Args:
        step: The step with its context.

    Returns:
        The step's result.

    Raises:
        EdgekitError: Any error of the stage.
    """
    if "code" in step.arguments:
        step.context.named_code.add(step.arguments["code"])
    if not step.step.folder and step.output.is_file() and not step.output.is_symlink():
        step.output.unlink(missing_ok=True)  # an output of an earlier run must not count as this run's result
    return STEP_HANDLERS[step.step.kind].execute(step)
