"""The state of a running precision search, and the operations that it runs in workers.

All files are written to a scratch folder that is deleted when the command ends.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.config.device_profile import DeviceProfile
from edgekit.contracts.target import Target
from edgekit.core.errors import InputError, MissingDependency, StepError
from edgekit.core.events import FinishEvent, NoteEvent, ProgressEvent, StartEvent
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import SourceModel
from edgekit.core.records.tuning import Candidate, Constraints, LayerSensitivity, Preference
from edgekit.core.units import format_bytes
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import HOST
from edgekit.devices.emulation import emulator
from edgekit.stages.benchmark.bench import BenchOptions, bench_one, emulates
from edgekit.stages.benchmark.emulated_bench import emulate_one
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import export, export_plans
from edgekit.stages.conversion.export_plans import ExportPlan, ExportSettings
from edgekit.stages.tuning import trial_job
from edgekit.stages.tuning.search import Judge
from edgekit.stages.tuning.trial_job import ArtifactRun, FloatBase, Trial, TrialResult, make_float_base, run_trial


@dataclass(frozen=True)
class TuneOptions:
    """The options of a precision search.

    Attributes:
        max_drop: The largest drop of the task metric: absolute for a metric that is a share (accuracy, AUC), otherwise
            relative to the value of the source model.
        max_size_bytes: The largest size of the model file; None for no limit.
        max_latency_ms: The largest latency; None for no limit.
        max_float_share: The largest share of the weights in layers kept in float, from 0 to 1.
        device: The name of the device, or `host`.
        profile: The device's profile; None for this host.
        tier: The tier whose latencies are compared.
        preference: Which of the accurate candidates to choose, by `latency` or by `size`.
        time_limit_s: The time limit of the search in seconds; None for no limit.
        keep_best: Whether to write the best candidate even if none meets the constraints.
        bench: The options of the latency measurements.
    """

    max_drop: float = 0.01
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None
    max_float_share: float = 0.25
    device: str = HOST
    profile: DeviceProfile | None = None
    tier: str = "host"
    preference: Preference = "latency"
    time_limit_s: float | None = None
    keep_best: bool = False
    bench: BenchOptions = field(default_factory=BenchOptions)


@dataclass
class TuningSession:
    """A running precision search.

    Attributes:
        context: The project and its workers.
        source: The source model.
        source_folder: The folder of the source model.
        target: The target.
        plans: The export plan by precision.
        settings: The settings of the exports.
        options: The options of the search.
        constraints: The limits that candidates are judged by.
        judge: The reference that candidates are compared with.
        scratch: The scratch folder.
        guest: The emulated device, if the emulated tier is compared.
        deadline_s: The end of the search on the monotonic clock in seconds; None for no limit.
        tried: The candidates so far.
        folders: The folders of exported candidates, by recipe.
        sensitivities: The sensitivity of each layer group, the largest gain first.
        notes: The notes of the search.
        stopped: Whether the time limit ended the search.
    """

    context: Context
    source: SourceModel
    source_folder: Path
    target: Target
    plans: dict[str, ExportPlan]
    settings: ExportSettings
    options: TuneOptions
    constraints: Constraints
    judge: Judge
    scratch: Path
    guest: emulator.Guest | None
    deadline_s: float | None
    tried: list[Candidate] = field(default_factory=list)
    folders: dict[Recipe, Path] = field(default_factory=dict)
    sensitivities: list[LayerSensitivity] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def step(self) -> str:
        """The name of the step, such as `tune simple_cnn/keras tflite`."""
        return f"tune {self.source.name}/{self.source.kind} {self.target.name}"

    @property
    def late(self) -> bool:
        """Whether the time limit is reached; a note is emitted the first time."""
        if self.deadline_s is not None and time.monotonic() >= self.deadline_s and not self.stopped:
            self.stopped = True
            self.note("the time limit ended the search: the remaining candidates were not tried")
        return self.stopped

    def note(self, text: str, *, warning: bool = False) -> None:
        """Emit a note and keep it for the result.

        Args:
            text: The note.
            warning: Whether it is a warning.
        """
        self.notes.append(text)
        self.context.emit(NoteEvent(self.step, text, warning=warning))

    def add(self, candidate: Candidate) -> Candidate:
        """Add a candidate to those that were tried.

        Args:
            candidate: The candidate.

        Returns:
            The candidate; the earlier one if another recipe already produced the same file.
        """
        duplicate = next((earlier for earlier in self.tried if earlier.sha256 == candidate.sha256), None)
        if duplicate is not None:
            return duplicate
        self.tried.append(candidate)
        drop = f"{self.constraints.drop_name} {self.constraints.format_drop(candidate.drop)}"
        detail = f"{format_bytes(candidate.size_bytes)}, {drop}"
        self.context.emit(FinishEvent(f"{self.step}: {candidate.recipe}", detail))
        return candidate

    def progress(self, phase: str, done: int, total: int) -> None:
        """Emit the progress of a phase of the search.

        Args:
            phase: The name of the phase.
            done: The number of completed trials.
            total: The number of all trials.
        """
        if done == 0:
            self.context.emit(StartEvent(f"{self.step}: {phase}"))
        self.context.emit(ProgressEvent(f"{self.step}: {phase}", done, total))


def try_candidate(run: TuningSession, label: str, work: Callable[[], TrialResult]) -> TrialResult | None:
    """Run a trial that may fail.

    Args:
        run: The search.
        label: The name of the trial, for the warning.
        work: The trial.

    Returns:
        The result; None, with a warning, if the trial fails.
    """
    try:
        return work()
    except (InputError, MissingDependency, StepError) as error:
        run.note(f"{label} could not be converted or run: {error}", warning=True)
        return None


def export_candidate(run: TuningSession, recipe: Recipe) -> Artifact:
    """Export a recipe to the scratch folder on first use.

    Args:
        run: The search.
        recipe: The recipe.

    Returns:
        The artifact.

    Raises:
        EdgekitError: The recipe cannot be exported.
    """
    if recipe not in run.folders:
        (plan,) = export_plans.with_recipe((run.plans[recipe.precision],), recipe)
        folder = run.scratch / f"{len(run.folders)}-{recipe.precision}"
        export.export_one(run.context, plan, replace(run.settings, recipe=recipe), folder)
        run.folders[recipe] = folder
    return load_artifact(run.folders[recipe])


def run_artifact(run: TuningSession, artifact: Artifact) -> TrialResult:
    """Run an artifact on the golden and test samples in a worker.

    Args:
        run: The search.
        artifact: The artifact.

    Returns:
        Its size and outputs.

    Raises:
        StepError: The process that runs the artifact fails.
    """
    manifest = artifact.manifest
    return run.context.pool.call(
        trial_job.run_artifact,
        ArtifactRun(manifest.runtime, str(artifact.path), manifest.signature, str(run.source_folder)),
        step=f"{run.step}: {artifact.manifest.variant}",
        environment=runtime_environment(manifest.runtime),
    )


def convert_float_base(run: TuningSession, precision: str) -> FloatBase | None:
    """Convert the float file that recipes start from, by the first route that works.

    Args:
        run: The search.
        precision: The precision whose routes are tried.

    Returns:
        The float file; None, with a warning for each route, if no route works.
    """
    plan = run.plans[precision]
    folder = Path(tempfile.mkdtemp(prefix="base-", dir=run.scratch))
    for route in plan.routes:
        try:
            request, environment = export.conversion_request(run.context, plan, route, run.settings, folder)
            return run.context.pool.call(
                make_float_base,
                request,
                step=f"{run.step}: float file",
                environment=environment,
                listener=run.context.emit,
            )
        except (InputError, MissingDependency, StepError) as error:
            run.note(f"the float model could not be converted by {route}: {error}", warning=True)
    return None


def trial_runner(run: TuningSession, base: FloatBase) -> Callable[[Recipe, int | None], TrialResult | None]:
    """Return a function that quantizes the float file by a recipe and runs the result.

    Args:
        run: The search.
        base: The float file.

    Returns:
        A function of a recipe and a number of test samples (None for all), as `Search` expects it.
    """
    folder, cache = (Path(tempfile.mkdtemp(prefix=prefix, dir=run.scratch)) for prefix in ("trial-", "cache-"))

    def attempt(recipe: Recipe, tests: int | None) -> TrialResult | None:
        trial = Trial(base, recipe, str(run.source_folder), str(folder), str(cache), tests)
        return try_candidate(
            run,
            str(recipe),
            lambda: run.context.pool.call(
                run_trial,
                trial,
                step=f"{run.step}: {recipe}",
                environment=runtime_environment(run.target.runtime),
            ),
        )

    return attempt


def measure_latency(run: TuningSession, candidate: Candidate) -> float | None:
    """Measure the latency of a candidate on the device of the search.

    Args:
        run: The search.
        candidate: The candidate.

    Returns:
        The latency in ms of the tier of the search; None if it cannot be measured.
    """
    label = f"{candidate.recipe} on {run.options.device}"
    run.context.emit(StartEvent(f"{run.step}: measure {label}"))
    try:
        artifact = export_candidate(run, candidate.recipe)
        if artifact.manifest.sha256 != candidate.sha256:
            run.note(f"{candidate.recipe}: the exported file differs from the one that was tried", warning=True)
        options = run.options
        emulated = None
        if run.guest is not None and emulates(artifact):
            emulated = emulate_one(run.context, artifact, run.guest, options.bench.prediction).emulated
        measurement = bench_one(run.context, artifact, options.device, options.profile, options.bench, emulated)
    except (InputError, StepError) as error:
        run.note(f"{label} could not be measured: {error}", warning=True)
        return None
    return measurement.latency_ms.get(run.options.tier)
