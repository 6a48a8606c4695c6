"""The contract of an executor: it runs a model file in a runtime somewhere - here, under an emulator, on a board.

`prepare` does what comes before the measurement (starts a process, copies a file to the board, opens a page) and yields
what measures; `infer` answers samples. Requests and results are frozen values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.config.device_profile import DeviceProfile
from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import Signature
from edgekit.workers.pool import WorkerPool


@dataclass(frozen=True)
class Place:
    """Where a model runs: a device and its profile.

    Attributes:
        device: The device's name; `host` for this machine as it is.
        profile: The device's profile, or None for this machine as it is.
    """

    device: str
    profile: DeviceProfile | None = None


@dataclass(frozen=True)
class ModelFiles:
    """A model to run.

    Attributes:
        label: The model's name for people.
        target: The target whose format the files have.
        precision: The model's precision.
        runtime: The runtime that runs it.
        path: The main file, absolute; its hash was checked.
        files: All files, absolute, the main one first.
        signature: The file's inputs and outputs.
        samples: An npz file of samples, whose arrays `input/<name>` have the shape (N, ...).
    """

    label: str
    target: str
    precision: str
    runtime: str
    path: Path
    files: tuple[Path, ...]
    signature: Signature
    samples: Path

    @classmethod
    def of(cls, artifact: Artifact, runtime: str = "") -> ModelFiles:
        """Return an artifact's files for a runtime, by default the manifest's.

        Raises:
            InputError: A file is missing or not the one that was exported.
        """
        manifest = artifact.manifest
        path = artifact.verified_path().resolve()
        return cls(
            label=artifact.label,
            target=manifest.target,
            precision=manifest.precision,
            runtime=runtime or manifest.runtime,
            path=path,
            files=tuple(file.resolve() for file in artifact.paths),
            signature=manifest.signature,
            samples=(artifact.folder / GOLDEN_FILE).resolve(),
        )


@dataclass(frozen=True)
class BenchRequest:
    """How to measure.

    Attributes:
        threads: The number of threads; None for the profile's, else 1.
        min_duration_s: The minimum time to measure, in seconds.
        min_runs: The minimum number of inferences.
        warm_up_max_s: The time in seconds after which warming up ends.
        timeout_s: The limit in seconds for preparing, and for measuring.
        per_operator: Whether to measure each operator too, where the runtime can.
    """

    threads: int | None = None
    min_duration_s: float = 0.25
    min_runs: int = 50
    warm_up_max_s: float = 3.0
    timeout_s: float = 300.0
    per_operator: bool = False


@dataclass(frozen=True)
class BenchResult:
    """What a bench measured. Times are in ms, sizes in bytes; None where the executor does not measure it.

    Attributes:
        latency_ms: The latency of one inference, the median where it was measured often.
        threads: The number of threads that it ran with.
        description: The machine that it ran on, in a few words.
        low_ms: The lower end of the latency's interval.
        high_ms: The upper end of the latency's interval.
        wall: The distribution of the wall-clock times.
        cpu: The distribution of the CPU times.
        load_ms: The time to load the model.
        first_inference_ms: The time of the first inference.
        warm_up_runs: The number of inferences before the measured ones.
        cpus: The cores that it was pinned to.
        peak_memory_load_bytes: The peak of the process's memory while loading, above what the runtime's library takes.
        peak_memory_run_bytes: The same while running.
        operators: The cost of each operator, in the order of computation.
        emulated: The counts behind a predicted latency.
        notes: Remarks for the user.
    """

    latency_ms: float
    threads: int
    description: str
    low_ms: float | None = None
    high_ms: float | None = None
    wall: Distribution | None = None
    cpu: Distribution | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    warm_up_runs: int | None = None
    cpus: tuple[int, ...] | None = None
    peak_memory_load_bytes: int | None = None
    peak_memory_run_bytes: int | None = None
    operators: tuple[OperatorCost, ...] = ()
    emulated: EmulatedLatency | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class InferRequest:
    """Samples to run.

    Attributes:
        inputs: Real values by input name, shape (N, ...).
        batch: Samples a call, where the batch is symbolic.
        timeout_s: The limit in seconds; None for the executor's own.
    """

    inputs: Mapping[str, Array]
    batch: int = 1
    timeout_s: float | None = None


@dataclass(frozen=True)
class InferResult:
    """The outputs as real values by name, shape (N, ...)."""

    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class ExecutionSession:
    """What an executor runs with.

    Attributes:
        step: The step's name, for error messages.
        pool: The worker processes of this run.
    """

    step: str
    pool: WorkerPool


class PreparedBench(ABC):
    """A model that is ready to be measured."""

    @abstractmethod
    def run(self) -> BenchResult:
        """Measure the model as the request of `prepare` says.

        Raises:
            StepError: The process or the device did not survive it, or did not answer in time.
        """


class Executor(ABC):
    """Runs models somewhere.

    Attributes:
        name: The executor's name, as `--executor` takes it.
        title: The executor's name for people.
        tier: The tier of its figures, a name of `edgekit.core.values.tiers`.
        requires: What has to be installed.
        exclusive: Whether a bench must run alone on this machine, because other load would change its figures.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tier: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]] = ()
    exclusive: ClassVar[bool] = True

    def refusal(self, runtime: str, place: Place) -> str:
        """Return why it does not run a runtime at a place, or an empty string where it does. Starts nothing."""
        return ""

    def check(self, runtime: str, place: Place) -> None:
        """Raise InputError where `refusal` says why not, and MissingDependency where a requirement is missing."""
        reason = self.refusal(runtime, place)
        if reason:
            raise InputError(f"the executor {self.name} does not run {runtime} on {place.device}: {reason}")
        require(self.requires, f"the executor {self.name}")

    @abstractmethod
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> AbstractContextManager[PreparedBench]:
        """Prepare a model to be measured, in a block that cleans up at its end.

        Raises:
            MissingDependency: Something is not installed or set up.
            StepError: The model could not be prepared.
        """

    @abstractmethod
    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run a model on samples.

        Raises:
            MissingDependency: Something is not installed or set up.
            StepError: The process or the device did not survive it, or did not answer in time.
        """


EXECUTORS: PluginKind[Executor] = PluginKind(
    "edgekit.devices.executors",
    "EXECUTOR",
    Executor,  # type: ignore[type-abstract]
    "edgekit.executors",
)
