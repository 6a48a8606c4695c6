"""One precision search under way: what it works on, and what it has workers do.

Everything is made in a scratch folder that ends with the command.
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
from edgekit.core.events import Finished, Noted, Progress, Started
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
from edgekit.stages.conversion import export
from edgekit.stages.conversion.export import ExportPlan, ExportSettings
from edgekit.stages.tuning import trial_job
from edgekit.stages.tuning.search import Judge
from edgekit.stages.tuning.trial_job import ArtifactRun, FloatBase, Trial, TrialResult, make_float_base, run_trial


@dataclass(frozen=True)
class TuneOptions:
    """`max_drop` is a share: of the metric's own unit where that is one (accuracy, AUC), else of the source's value.

    `device` None is this host as it is. `tier` is whose latencies count. `keep_best` writes the best candidate also
    where none meets the constraints.
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
    """One search under way; `tried` are its candidates, `folders` the artifacts of those that have one by now."""

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
        """`tune simple_cnn/keras tflite`."""
        return f"tune {self.source.name}/{self.source.kind} {self.target.name}"

    @property
    def late(self) -> bool:
        """Whether the time is up; told once."""
        if self.deadline_s is not None and time.monotonic() >= self.deadline_s and not self.stopped:
            self.stopped = True
            self.note("the time limit ended the search; what was not tried is not judged")
        return self.stopped

    def note(self, text: str, *, warning: bool = False) -> None:
        """Tells something, and keeps it for the answer."""
        self.notes.append(text)
        self.context.emit(Noted(self.step, text, warning=warning))

    def add(self, item: Candidate) -> Candidate:
        """Keeps a candidate and tells it; what two recipes make alike stays one candidate."""
        known = next((other for other in self.tried if other.sha256 == item.sha256), None)
        if known is not None:
            return known
        self.tried.append(item)
        detail = (
            f"{format_bytes(item.size_bytes)}, {self.constraints.drop_name} {self.constraints.format_drop(item.drop)}"
        )
        self.context.emit(Finished(f"{self.step}: {item.recipe}", detail))
        return item

    def progress(self, what: str, done: int, total: int) -> None:
        """One more of a round of trials."""
        if done == 0:
            self.context.emit(Started(f"{self.step}: {what}"))
        self.context.emit(Progress(f"{self.step}: {what}", done, total))


def try_candidate(run: TuningSession, what: str, work: Callable[[], TrialResult]) -> TrialResult | None:
    """A trial that may fail: it is told, and the others go on."""
    try:
        return work()
    except (InputError, MissingDependency, StepError) as error:
        run.note(f"{what} could not be made: {error}", warning=True)
        return None


def artifact_of(run: TuningSession, recipe: Recipe) -> Artifact:
    """The recipe's artifact in the scratch folder, made once."""
    if recipe not in run.folders:
        (plan,) = export.with_recipe((run.plans[recipe.precision],), recipe)
        folder = run.scratch / f"{len(run.folders)}-{recipe.precision}"
        export.export_one(run.context, plan, replace(run.settings, recipe=recipe), folder)
        run.folders[recipe] = folder
    return load_artifact(run.folders[recipe])


def run_artifact(run: TuningSession, artifact: Artifact) -> TrialResult:
    """Run the artifact on the selection samples and judge its outputs."""
    manifest = artifact.manifest
    return run.context.pool.call(
        trial_job.run_artifact,
        ArtifactRun(manifest.runtime, str(artifact.path), manifest.signature, str(run.source_folder)),
        step=f"{run.step}: {artifact.manifest.variant}",
        environment=runtime_environment(manifest.runtime),
    )


def float_base(run: TuningSession, precision: str) -> FloatBase | None:
    """The float file, by the first route that can make it."""
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
            run.note(f"{route} made no float file to start from: {error}", warning=True)
    return None


def trial_runner(run: TuningSession, base: FloatBase) -> Callable[[Recipe, int | None], TrialResult | None]:
    """Return a function that quantizes the float file by a recipe and judges the result."""
    folder, known = (Path(tempfile.mkdtemp(prefix=prefix, dir=run.scratch)) for prefix in ("trial-", "known-"))

    def attempt(recipe: Recipe, tests: int | None) -> TrialResult | None:
        trial = Trial(base, recipe, str(run.source_folder), str(folder), str(known), tests)
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


def latency_of(run: TuningSession, item: Candidate) -> float | None:
    """Of the search's tier; None where there is none, which is told."""
    what = f"{item.recipe} on {run.options.device}"
    run.context.emit(Started(f"{run.step}: measure {what}"))
    try:
        artifact = artifact_of(run, item.recipe)
        if artifact.manifest.sha256 != item.sha256:
            run.note(f"{item.recipe}: the export made other bytes than the trial", warning=True)
        options = run.options
        emulated = None
        if run.guest is not None and emulates(artifact):
            emulated = emulate_one(run.context, artifact, run.guest, options.bench.prediction).emulated
        measured = bench_one(run.context, artifact, options.device, options.profile, options.bench, emulated)
    except (InputError, StepError) as error:
        run.note(f"{what} could not be measured: {error}", warning=True)
        return None
    return measured.latency_ms.get(run.options.tier)
