"""The contract of an executor, which runs a model file in a runtime: here, under an emulator, on a board, in a browser.

`prepare` does the work before a measurement, such as starting a process or copying a file to the board, and yields an
object that measures; `infer` runs samples. Requests and results are frozen dataclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.config.device_profile import DeviceProfile
from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError
from edgekit.core.events import Listener, NoteEvent, ignore
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.browser_figures import BrowserFigures
from edgekit.core.records.emulated_measurement import EmulatedLatency
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import Signature
from edgekit.workers.pool import WorkerPool


@dataclass(frozen=True)
class Place:
    """The device that a model runs on.

    Attributes:
        device: The name of the device; `host` is this machine without a profile.
        profile: The profile of the device; None for `host`.
    """

    device: str
    profile: DeviceProfile | None = None


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model to run.

    Attributes:
        label: The name of the model for display.
        target: The target whose format the files have.
        precision: The precision of the model, such as `int8`.
        runtime: The name of the runtime that executes the files.
        path: The absolute path of the main file, whose hash has been checked.
        files: The absolute paths of all files, the main one first.
        signature: The inputs and outputs of the main file.
        samples: The absolute path of an npz file with arrays `input/<name>` of shape (N, ...).
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
        """Return the files of an artifact.

        Args:
            artifact: The artifact; its golden samples become the samples.
            runtime: The name of the runtime; empty for the one in the manifest.

        Returns:
            The files with absolute paths.

        Raises:
            InputError: A file is missing, or its hash differs from the manifest's.
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
    """The parameters of a measurement.

    Attributes:
        threads: The number of threads; None for the profile's number, or 1 without a profile.
        min_duration_s: The minimum duration of the measurement in seconds.
        min_runs: The minimum number of measured inferences.
        warm_up_max_s: The maximum duration of the warm-up in seconds.
        timeout_s: The time limit in seconds, for the preparation and for the measurement separately.
        per_operator: Whether to measure each operator as well, if the runtime supports it.
    """

    threads: int | None = None
    min_duration_s: float = 0.25
    min_runs: int = 50
    warm_up_max_s: float = 3.0
    timeout_s: float = 300.0
    per_operator: bool = False

    def threads_at(self, place: Place) -> int:
        """Return the number of threads on a device: the requested one, or that of its profile.

        Args:
            place: The device.
        """
        return self.threads or (place.profile.run.threads if place.profile else 1)


@dataclass(frozen=True)
class BenchResult:
    """The result of a measurement; None for every figure that the executor does not measure.

    Attributes:
        latency_ms: The latency of one inference in ms, the median of several ones.
        threads: The number of threads that the model ran with.
        description: The machine that the model ran on, as a short phrase.
        low_ms: The lower end of the latency's interval in ms.
        high_ms: The upper end of the latency's interval in ms.
        wall: The distribution of the wall-clock times of one inference.
        cpu: The distribution of the CPU times of one inference, summed over all threads.
        load_ms: The time in ms to open the model file, with the runtime's library already imported.
        first_inference_ms: The wall-clock time of the first inference in ms.
        warm_up_runs: The number of inferences before the measured ones.
        cpus: The numbers of the cores that the process was pinned to.
        peak_memory_load_bytes: The peak memory of the process in bytes while it opens the file, less the memory that
            the process with the runtime's library occupied before.
        peak_memory_run_bytes: The peak memory of the process in bytes while it runs inferences, less the same amount.
        operators: The cost of each operator, in the order of computation; empty if not measured.
        emulated: The counts from which the latency was predicted; only executors of the tier `emulated` set it.
        browser: What ran in a browser, and what is transferred to it; None elsewhere.
        throttled: Why the device ran slower than it can, as a clause; empty if it did not, or does not show it.
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
    browser: BrowserFigures | None = None
    throttled: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class InferRequest:
    """The parameters of a run on samples.

    Attributes:
        inputs: Real values of shape (N, ...) by input name.
        batch: The number of samples per call if the batch is symbolic.
        timeout_s: The time limit in seconds; None for the executor's default.
        by_default: Whether to run the samples also as an application does that sets no options of the runtime, where
            the executor can tell the two apart.
        from_start: Whether the model file is opened again for each sample: calls change the model's state, and runtimes
            have no common way to reset it.
    """

    inputs: Mapping[str, Array]
    batch: int = 1
    timeout_s: float | None = None
    by_default: bool = False
    from_start: bool = False


@dataclass(frozen=True)
class InferResult:
    """The outputs of a run on samples.

    Attributes:
        outputs: Real values of shape (N, ...) by output name.
        arithmetic: The instruction set that computed them, and how; empty where the executor does not know.
        by_default: The outputs in a session without options; None where they are the same, or were not requested.
    """

    outputs: Mapping[str, Array]
    arithmetic: str = ""
    by_default: Mapping[str, Array] | None = None


@dataclass(frozen=True)
class ExecutionSession:
    """The environment of an executor's calls.

    Attributes:
        step: The name of the step, for error messages.
        pool: The worker processes that the calls share.
        emit: Receives remarks, such as that a board is busy.
    """

    step: str
    pool: WorkerPool
    emit: Listener = ignore

    def announce_wait(self, device: str) -> Callable[[], None]:
        """Return a function that tells the user that a device is busy.

        Args:
            device: The name of the device.
        """
        text = "another measurement runs on the device; this one waits for its end"
        return lambda: self.emit(NoteEvent(f"{self.step} ({device})", text))


class PreparedBench(ABC):
    """A model that is ready to be measured."""

    @abstractmethod
    def run(self) -> BenchResult:
        """Measure the model with the parameters that `prepare` received.

        Returns:
            The latency, and every other figure that the executor measures.

        Raises:
            StepError: The process or the device crashed, failed or exceeded the time limit.
        """


class Executor(ABC):
    """A way to run models on a device.

    Attributes:
        name: The name of the executor, as in `--executor`; it equals the name of the plug-in.
        title: The name for display.
        tier: The tier of its figures, a name from `edgekit.core.values.tiers`.
        requires: The packages that it needs.
        exclusive: Whether a measurement must run alone on this machine, because other load would change its figures.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tier: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]] = ()
    exclusive: ClassVar[bool] = True

    def refusal(self, runtime: str, place: Place) -> str:
        """Return why the executor cannot run a runtime on a device; it starts no process.

        Args:
            runtime: The name of the runtime.
            place: The device.

        Returns:
            The reason as a phrase for an error message, or an empty string if the executor supports both.
        """
        return ""

    def runtime_at(self, runtime: str, place: Place) -> str:
        """Return the runtime that runs a model on a device.

        Args:
            runtime: The name of the runtime that runs the model on this host.
            place: The device; `refusal` has returned an empty string for it.

        Returns:
            The same name, unless the device has a runtime of its own for the model's format.
        """
        return runtime

    def connect(self, pool: WorkerPool, place: Place) -> None:  # noqa: B027 - most executors connect to nothing
        """Check that a device can be reached, before anything else of a command runs.

        Args:
            pool: The workers of the command; a connection is closed with them.
            place: The device.

        Raises:
            InputError: The device is unknown, or refuses the connection.
            MissingDependency: A package or a tool is not installed here or on the device.
            StepError: The device does not answer.
        """

    def identity(self, place: Place) -> str:
        """Return what tells a device from another one of the same name, for the records of a pipeline.

        Args:
            place: The device.

        Returns:
            A text, such as how the device is reached; empty where the name and its profile say it all.

        Raises:
            InputError: The device is unknown, or its configuration is invalid.
        """
        return ""

    def check(self, runtime: str, place: Place) -> None:
        """Check that the executor can run a runtime on a device.

        Args:
            runtime: The name of the runtime.
            place: The device.

        Raises:
            InputError: The executor does not support the runtime or the device.
            MissingDependency: A required package is not installed.
        """
        reason = self.refusal(runtime, place)
        if reason:
            raise InputError(f"the executor {self.name} does not run {runtime} on {place.device}: {reason}")
        require(self.requires, f"the executor {self.name}")

    @abstractmethod
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> AbstractContextManager[PreparedBench]:
        """Prepare a model for a measurement.

        Args:
            session: The environment of the call.
            model: The files of the model.
            place: The device; `refusal` has returned an empty string for it.
            request: The parameters of the measurement.

        Returns:
            A context manager that yields the prepared model. Leaving its block ends processes and removes files, even
            if the model was not measured.

        Raises:
            MissingDependency: A package or a tool is not installed or not set up.
            StepError: The model could not be prepared.
        """

    @abstractmethod
    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run a model on samples.

        Args:
            session: The environment of the call.
            model: The files of the model.
            place: The device; `refusal` has returned an empty string for it.
            request: The samples.

        Returns:
            The outputs of all samples, in the order of the samples.

        Raises:
            InputError: The samples do not fit the signature of the model.
            MissingDependency: A package or a tool is not installed or not set up.
            StepError: The process or the device crashed, failed or exceeded the time limit.
        """


EXECUTORS: PluginKind[Executor] = PluginKind(
    "edgekit.devices.executors",
    "EXECUTOR",
    Executor,  # type: ignore[type-abstract]
    "edgekit.executors",
)
