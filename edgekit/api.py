"""The Python API: the stages behind the commands, as typed functions.

All of them follow the same rules:

* Frameworks and converters run in worker processes, as they do for the commands: a converter that crashes raises an
  exception here and does not end the interpreter.
* A verdict is a value. An artifact that is not equivalent to its source, or exceeds a budget, does not raise.
* An error is an exception, a subclass of `edgekit.core.errors.EdgekitError`: `InputError`, `MissingDependency`, or a
  `StepError`. If one of several steps fails, the other ones are completed and their results written to disk; then the
  most severe error is raised, with notes on the other ones.

A `Session` keeps the workers for the next call. Without a session, each call starts its own workers.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from edgekit.core.errors import EdgekitError, InputError, unknown_name
from edgekit.core.events import Listener, ignore
from edgekit.core.records.check_result import CheckResult

# Loaded where they are used: importing this module costs no numpy, no pydantic and no plug-in.
if TYPE_CHECKING:
    from edgekit.core.numerics.metrics import Array
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.measurement import Measurement
    from edgekit.core.records.regressions import RegressionThresholds
    from edgekit.core.records.validation import Validation
    from edgekit.core.values.budgets import Budget
    from edgekit.stages.context import Context
    from edgekit.stages.selection import Selection
    from edgekit.stages.validation.compare import Equivalence
    from edgekit.workers.pool import WorkerPool

__all__ = ["CheckResult", "Session", "bench", "check", "compare", "export", "load_artifact", "validate"]

# As strings, because their parts are imported for type checkers only.
ModelNames: TypeAlias = "str | Path | Artifact | Sequence[str | Path | Artifact]"
Samples: TypeAlias = "str | Path | Array | Mapping[str, Array]"

# Default time limit in seconds of a step, as for the commands.
_TIMEOUT_S = 600.0


class Session:
    """Worker processes that several calls share, which saves the seconds that importing a framework takes.

    The methods have the arguments, results and errors of the functions with the same names; without a `root` they work
    in the session's project. Leaving the `with` block ends the workers; without a block, call `close`. Several threads
    may use a session.

    Example:
        ```python
        with edgekit.Session("project") as session:
            for precision in ("float32", "int8"):
                session.export("net.onnx", target="tflite", precision=precision, sample="samples.npz")
            session.validate("net")
        ```
    """

    def __init__(
        self, root: str | Path = ".", *, timeout_s: float = _TIMEOUT_S, on_event: Listener | None = None
    ) -> None:
        """Create a session; no process is started before it is needed.

        Args:
            root: The project's folder.
            timeout_s: Seconds that one step in a worker may take.
            on_event: Receives the progress events of `edgekit.core.events`, possibly from several threads.
        """
        _check_positive("timeout_s", timeout_s)
        self.root = Path(root)
        self._timeout_s = timeout_s
        self._on_event = on_event or ignore
        self._lock = threading.Lock()
        self._pool: WorkerPool | None = None
        self._end_workers: Callable[[], object] = _nothing
        self._closed = False

    def close(self) -> None:
        """End the workers; the session cannot be used afterwards."""
        self._closed = True
        self._discard_pool()

    def _workers(self) -> WorkerPool:
        from edgekit.workers.pool import WorkerPool

        with self._lock:
            if self._pool is None:
                self._pool = WorkerPool(timeout_s=self._timeout_s)
                # A session that is never closed ends its workers when it is collected or the interpreter exits.
                self._end_workers = weakref.finalize(self, self._pool.close)
            return self._pool

    def _discard_pool(self) -> None:
        with self._lock:
            self._pool = None
            self._end_workers()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def context(self, root: str | Path | None = None) -> Iterator[Context]:
        """Provide a project with the session's workers, for the functions of `edgekit.stages`.

        Args:
            root: Folder of another project; None for the session's.

        Yields:
            The context of one call. Leaving the block raises the most severe error among its failures.

        Raises:
            RuntimeError: The session is closed.
            InputError: There is no such folder.
            EdgekitError: A step failed.
        """
        from edgekit.core.environment.project import open_project
        from edgekit.stages.context import Context

        if self._closed:
            raise RuntimeError("this session is closed; create another one")
        project = open_project(self.root if root is None else Path(root))
        context = Context(project, self._workers(), self._on_event)
        try:
            yield context
        except EdgekitError:
            raise
        except BaseException:
            # Ctrl-C, or a listener that raised: the pool refuses further calls, so the next call gets another one.
            self._discard_pool()
            raise
        finally:
            context.close()
        context.raise_failures()

    def export(
        self,
        model: str | Path,
        *,
        target: str | Sequence[str] = (),
        precision: str | None = None,
        framework: str | None = None,
        weights: str | Path | None = None,
        inputs: str | Sequence[str] = (),
        sample: Samples | None = None,
        calibration: Samples | None = None,
        calibration_samples: int | None = None,
        image_range: tuple[float, float] = (0.0, 1.0),
        dims: Mapping[str, int] | None = None,
        layout: str | None = None,
        options: Mapping[str, int] | None = None,
        recipe: str | Path | None = None,
        route: str | None = None,
        name: str | None = None,
        root: str | Path | None = None,
    ) -> tuple[Artifact, ...]:
        """Convert a model, as `edgekit.export` does."""
        from edgekit.stages.conversion.export import export
        from edgekit.stages.conversion.export_request import export_request, plan_exports
        from edgekit.stages.models.model_refs import UserModelOptions

        with self.context(root) as context:
            model_options = UserModelOptions(
                name,
                None if weights is None else Path(weights),
                _texts(inputs),
                None if sample is None else _samples_file(context, sample, "sample"),
                None if calibration is None else str(_samples_file(context, calibration, "calibration")),
                _check_sizes(dims or {}),
                image_range,
            )
            request = export_request(
                (str(model),),
                framework=framework,
                targets=_texts(target),
                precision=precision,
                model_options=model_options,
                calibration_samples=calibration_samples,
                layout=layout,
                options=options,
                recipe=None if recipe is None else Path(recipe),
                route=route,
            )
            return export(context, plan_exports(context, request), request.settings)

    def validate(
        self,
        models: ModelNames = (),
        *,
        framework: str | None = None,
        target: str | Sequence[str] = (),
        precision: str | None = None,
        device: str | Sequence[str] = (),
        executor: str | Sequence[str] = (),
        runtime: str = "",
        stress: bool = False,
        root: str | Path | None = None,
    ) -> tuple[Validation, ...]:
        """Compare artifacts with their sources, as `edgekit.validate` does."""
        from edgekit.stages.selection import artifacts, with_runtime
        from edgekit.stages.validation.validate import validate_at

        with self.context(root) as context:
            selected = artifacts(context, _selection(models, framework, target, precision))
            return validate_at(
                context,
                with_runtime(context, selected, runtime),
                _texts(device),
                _texts(executor),
                runtime=runtime,
                stress=stress,
                timeout_s=self._timeout_s,
            )

    def compare(
        self,
        first: str | Path | Artifact,
        second: str | Path | Artifact,
        *,
        samples: Samples,
        labels: str | Path | Array | None = None,
        pairs: Mapping[str, str] | None = None,
        precision: str | None = None,
        root: str | Path | None = None,
    ) -> Equivalence:
        """Compare any two models, as `edgekit.compare` does."""
        from edgekit.stages.validation.compare import compare

        with self.context(root) as context:
            return compare(
                context,
                (_name(first), _name(second)),
                Path(samples) if isinstance(samples, (str, Path)) else _by_name(samples),
                labels=Path(labels) if isinstance(labels, (str, Path)) else labels,
                forced=pairs,
                precision=precision,
            )

    def bench(
        self,
        models: ModelNames = (),
        *,
        framework: str | None = None,
        target: str | Sequence[str] = (),
        precision: str | None = None,
        device: str | Sequence[str] = (),
        executor: str | Sequence[str] = (),
        runtime: str = "",
        emulated: bool = False,
        threads: int | None = None,
        min_duration_s: float = 0.25,
        min_runs: int = 50,
        per_op: bool = False,
        timeout_s: float = 300.0,
        root: str | Path | None = None,
    ) -> tuple[Measurement, ...]:
        """Measure artifacts, as `edgekit.bench` does."""
        from edgekit.stages.benchmark.bench import BenchOptions, bench, load_devices
        from edgekit.stages.selection import artifacts, check_executors, with_runtime

        executors = _texts(executor)
        check_executors(executors)
        _check_positive("timeout_s", timeout_s)
        _check_minimum("min_duration_s", min_duration_s, 0)
        _check_minimum("min_runs", min_runs, 1)
        _check_minimum("threads", threads, 1)
        options = BenchOptions(
            threads=threads,
            min_duration_s=min_duration_s,
            min_runs=min_runs,
            timeout_s=timeout_s,
            emulated=emulated or "emulated" in executors,
            runtime=runtime,
            executors=tuple(name for name in executors if name not in ("host", "emulated")),
            # The emulation is slower than the host.
            emulated_timeout_s=2 * timeout_s,
            per_op=per_op,
        )
        with self.context(root) as context:
            devices = load_devices(context.project, _texts(device))
            selected = artifacts(context, _selection(models, framework, target, precision))
            return bench(context, with_runtime(context, selected, runtime), devices, options)

    def check(
        self,
        models: ModelNames = (),
        *,
        framework: str | None = None,
        target: str | Sequence[str] = (),
        precision: str | None = None,
        device: str | Sequence[str] = (),
        max_size: int | str | None = None,
        max_peak_memory: int | str | None = None,
        max_drift: float | None = None,
        max_instructions: int | None = None,
        max_latency_ms: Mapping[str, float] | None = None,
        baseline: str | Path | None = None,
        max_regression: float | None = None,
        max_host_regression: float | None = None,
        max_metric_loss: float | None = None,
        root: str | Path | None = None,
    ) -> CheckResult:
        """Judge artifacts against budgets, as `edgekit.check` does."""
        from edgekit.stages.gates.gate import gate

        with self.context(root) as context:
            budgets = _budgets(max_size, max_peak_memory, max_drift, max_instructions, max_latency_ms or {})
            thresholds = _thresholds(baseline, max_regression, max_host_regression, max_metric_loss)
            return gate(
                context,
                _selection(models, framework, target, precision),
                budgets,
                _texts(device),
                None if baseline is None else Path(baseline),
                thresholds,
            )


def export(
    model: str | Path,
    *,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    framework: str | None = None,
    weights: str | Path | None = None,
    inputs: str | Sequence[str] = (),
    sample: Samples | None = None,
    calibration: Samples | None = None,
    calibration_samples: int | None = None,
    image_range: tuple[float, float] = (0.0, 1.0),
    dims: Mapping[str, int] | None = None,
    layout: str | None = None,
    options: Mapping[str, int] | None = None,
    recipe: str | Path | None = None,
    route: str | None = None,
    name: str | None = None,
    root: str | Path = ".",
    timeout_s: float = _TIMEOUT_S,
    on_event: Listener | None = None,
) -> tuple[Artifact, ...]:
    """Convert a model to edge formats, like `edgekit export`.

    A reference model that has not been trained is trained first. If one of several variants fails, the other ones are
    still written, and the most severe error is raised at the end. To handle each failure separately, export one variant
    per call in a `Session`.

    Args:
        model: Name of a model, a model file, a SavedModel folder, or code as `FILE.py:FUNCTION`.
        target: Targets or variants, such as `tflite` or `tflite:int8`; empty for every target.
        precision: Precision, such as `int8`; None for all precisions of the targets.
        framework: Framework of a reference model's source: `keras`, `torch` or `both`.
        weights: Weights of a model that is built by code: a state dict, safetensors or h5 file.
        inputs: Inputs of the model as `NAME:SHAPE:DTYPE`, if the model does not describe them.
        sample: Real inputs, shape `(N, ...)`: an npz or npy file, or arrays by input name. An array `labels` with the
            classes `(N,)` lets `validate` compute the accuracy.
        calibration: Inputs for the ranges of quantization: like `sample`, or a folder of images, or code as
            `FILE.py:FUNCTION`.
        calibration_samples: Number of calibration samples; None for 200, or all if there are fewer.
        image_range: Values that the pixels 0 and 255 of calibration images become.
        dims: Sizes of symbolic dimensions, such as `{"batch": 1}`.
        layout: Layout of images in the artifact, `NCHW` or `NHWC`; None keeps the converter's.
        options: Numbers for targets, by name: `{"opset": 18}`.
        recipe: Recipe file of a tuned variant, instead of target and precision.
        route: The only route to take, such as `keras,torch,tflite`.
        name: Name of a user's model in the project; None for the name of its file.
        root: The project's folder. Artifacts are written to its folder `build`.
        timeout_s: Seconds that one step may take.
        on_event: Receives the progress events.

    Returns:
        The artifacts. A variant that the model cannot reach is skipped with an event, unless it was named.

    Raises:
        InputError: The model is unknown or invalid, or an argument does not apply to it.
        MissingDependency: A package that the conversion needs is not installed.
        StepError: A conversion failed, crashed, ran out of time, memory or disk space.

    Example:
        ```python
        (artifact,) = edgekit.export("net.onnx", target="tflite:int8", sample={"image": images})
        print(artifact.path, artifact.manifest.size_bytes)
        ```
    """
    with Session(root, timeout_s=timeout_s, on_event=on_event) as session:
        return session.export(
            model,
            target=target,
            precision=precision,
            framework=framework,
            weights=weights,
            inputs=inputs,
            sample=sample,
            calibration=calibration,
            calibration_samples=calibration_samples,
            image_range=image_range,
            dims=dims,
            layout=layout,
            options=options,
            recipe=recipe,
            route=route,
            name=name,
        )


def validate(
    models: ModelNames = (),
    *,
    framework: str | None = None,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    device: str | Sequence[str] = (),
    executor: str | Sequence[str] = (),
    runtime: str = "",
    stress: bool = False,
    root: str | Path = ".",
    timeout_s: float = _TIMEOUT_S,
    on_event: Listener | None = None,
) -> tuple[Validation, ...]:
    """Run artifacts on their golden samples and compare the outputs with the source's, like `edgekit validate`.

    Each result is also written into the folder of its artifact.

    Args:
        models: Artifacts, folders of artifacts, or names of models; empty for everything in `build`.
        framework: Only artifacts of `keras` or `torch` sources; None for all.
        target: Only these targets or variants; empty for all.
        precision: Only this precision; None for all.
        device: Devices on whose emulated cores the artifacts run; empty for this host.
        executor: Executors that run the artifacts on the devices, instead of the emulated core.
        runtime: Runtime that runs the artifacts, instead of each target's default one.
        stress: Whether to run stress inputs as well, on this host: zeros, extremes, noise, denormals and batches.
        root: The project's folder.
        timeout_s: Seconds that one step may take.
        on_event: Receives the progress events.

    Returns:
        One result per artifact; `passed` is False if it is not equivalent, and `failures` lists the reasons.

    Raises:
        InputError: Nothing matches, or an artifact is damaged.
        MissingDependency: A runtime is not installed.
        StepError: An artifact crashed its runtime, or ran out of time or memory.

    Example:
        ```python
        for result in edgekit.validate("simple_cnn", target="tflite"):
            print(result.variant, result.passed, result.failures)
        ```
    """
    with Session(root, timeout_s=timeout_s, on_event=on_event) as session:
        return session.validate(
            models,
            framework=framework,
            target=target,
            precision=precision,
            device=device,
            executor=executor,
            runtime=runtime,
            stress=stress,
        )


def compare(
    first: str | Path | Artifact,
    second: str | Path | Artifact,
    *,
    samples: Samples,
    labels: str | Path | Array | None = None,
    pairs: Mapping[str, str] | None = None,
    precision: str | None = None,
    root: str | Path = ".",
    timeout_s: float = _TIMEOUT_S,
    on_event: Listener | None = None,
) -> Equivalence:
    """Run two models on the same samples and judge whether they compute the same, like `edgekit compare`.

    Args:
        first: The reference: an artifact, its folder, a model file of any format, or code as `FILE.py:FUNCTION`.
        second: The model that is compared with it, in one of the same forms.
        samples: Real inputs, shape `(N, ...)`: an npz or npy file, an array for a single input, or arrays by name.
        labels: Classes `(N,)` of the samples, a file or an array; the result then has the accuracy of both models.
        pairs: Tensor names of the first model with those of the second, to correct the automatic pairing.
        precision: Precision whose tolerances apply; None for the coarser one of the two models.
        root: The folder that code is imported from.
        timeout_s: Seconds that one step may take.
        on_event: Receives the progress events.

    Returns:
        The result; its `verdict` is `equal`, `not equal`, or `no evidence` if the outputs are the same for all samples.

    Raises:
        InputError: A model or the samples are invalid, or the inputs cannot be paired.
        MissingDependency: A package that runs one of the models is not installed.
        StepError: A model crashed its runtime, or ran out of time or memory.

    Example:
        ```python
        result = edgekit.compare("net.onnx", "net.tflite", samples={"image": images})
        assert result.verdict == "equal", result.comparisons
        ```
    """
    with Session(root, timeout_s=timeout_s, on_event=on_event) as session:
        return session.compare(first, second, samples=samples, labels=labels, pairs=pairs, precision=precision)


def bench(
    models: ModelNames = (),
    *,
    framework: str | None = None,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    device: str | Sequence[str] = (),
    executor: str | Sequence[str] = (),
    runtime: str = "",
    emulated: bool = False,
    threads: int | None = None,
    min_duration_s: float = 0.25,
    min_runs: int = 50,
    per_op: bool = False,
    timeout_s: float = 300.0,
    root: str | Path = ".",
    on_event: Listener | None = None,
) -> tuple[Measurement, ...]:
    """Measure size, latency and memory of artifacts, each in a process of its own, like `edgekit bench`.

    Each result is also written into the folder of its artifact.

    Args:
        models: Artifacts, folders of artifacts, or names of models; empty for everything in `build`.
        framework: Only artifacts of `keras` or `torch` sources; None for all.
        target: Only these targets or variants; empty for all.
        precision: Only this precision; None for all.
        device: Names of device profiles, or `all`; empty for this host without a profile.
        executor: Executors that measure the artifacts in addition to this host.
        runtime: Runtime that runs the artifacts, instead of each target's default one.
        emulated: Whether to measure in the tier `emulated` as well, on the devices' emulated cores.
        threads: Number of threads; None for the profile's, and 1 for this host.
        min_duration_s: Minimum duration of a measurement in seconds.
        min_runs: Minimum number of measured inferences.
        per_op: Whether to measure each operator as well, in the tiers that support it.
        timeout_s: Seconds that the measurement of one artifact may take; twice as many under emulation.
        root: The project's folder.
        on_event: Receives the progress events, from several threads.

    Returns:
        One measurement per artifact and device. An artifact that a device cannot run is skipped, with an event.

    Raises:
        InputError: Nothing matches, a device is unknown, or none of the devices runs any of the artifacts.
        MissingDependency: A runtime is not installed, or the emulation is not set up.
        StepError: An artifact crashed its runtime, or ran out of time or memory.

    Example:
        ```python
        (measurement,) = edgekit.bench("build/net/torch/tflite-int8")
        print(measurement.latency_ms["host"], measurement.peak_memory_bytes)
        ```
    """
    with Session(root, on_event=on_event) as session:
        return session.bench(
            models,
            framework=framework,
            target=target,
            precision=precision,
            device=device,
            executor=executor,
            runtime=runtime,
            emulated=emulated,
            threads=threads,
            min_duration_s=min_duration_s,
            min_runs=min_runs,
            per_op=per_op,
            timeout_s=timeout_s,
        )


def check(
    models: ModelNames = (),
    *,
    framework: str | None = None,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    device: str | Sequence[str] = (),
    max_size: int | str | None = None,
    max_peak_memory: int | str | None = None,
    max_drift: float | None = None,
    max_instructions: int | None = None,
    max_latency_ms: Mapping[str, float] | None = None,
    baseline: str | Path | None = None,
    max_regression: float | None = None,
    max_host_regression: float | None = None,
    max_metric_loss: float | None = None,
    root: str | Path = ".",
    on_event: Listener | None = None,
) -> CheckResult:
    """Judge the results of `validate` and `bench` against budgets, like `edgekit check`.

    Limits come from `model.toml`, the device profiles and the arguments; the strictest applies to each figure. A limit
    without a measurement counts as a failure. Nothing is run or measured.

    Args:
        models: Artifacts, folders of artifacts, or names of models; empty for everything in `build`.
        framework: Only artifacts of `keras` or `torch` sources; None for all.
        target: Only these targets or variants; empty for all.
        precision: Only this precision; None for all.
        device: Only measurements of these devices; empty for all.
        max_size: Largest size of the model files: bytes, or text such as `500 KB`.
        max_peak_memory: Largest peak memory of loading and one inference, in the same forms.
        max_drift: Largest loss in the unit of the task metric: 0.01 is one point of accuracy.
        max_instructions: Most instructions of one inference on the device's emulated core.
        max_latency_ms: Largest latency in ms by tier, such as `{"host": 5.0}`.
        baseline: Report of an earlier run, written by `edgekit report --format json`.
        max_regression: Allowed relative increase of size, instructions, analytic and emulated latency; None for 0.02.
        max_host_regression: Allowed relative increase of figures measured on this host; None for 0.2.
        max_metric_loss: Allowed loss in the unit of the task metric; None for 0.01.
        root: The project's folder.
        on_event: Receives the progress events.

    Returns:
        The verdicts; `passed` is False where one failed, or a figure is worse than the baseline allows.

    Raises:
        InputError: Nothing matches, a device was not measured, an argument is invalid, or a file is damaged.

    Example:
        ```python
        result = edgekit.check("simple_cnn", max_size="500 KB", max_latency_ms={"host": 5.0})
        assert result.passed, [verdict.sentence for verdict in result.failed]
        ```
    """
    with Session(root, on_event=on_event) as session:
        return session.check(
            models,
            framework=framework,
            target=target,
            precision=precision,
            device=device,
            max_size=max_size,
            max_peak_memory=max_peak_memory,
            max_drift=max_drift,
            max_instructions=max_instructions,
            max_latency_ms=max_latency_ms,
            baseline=baseline,
            max_regression=max_regression,
            max_host_regression=max_host_regression,
            max_metric_loss=max_metric_loss,
        )


def load_artifact(path: str | Path) -> Artifact:
    """Load an exported artifact.

    The model files are not read; `Artifact.verified_path` checks their hashes.

    Args:
        path: The artifact's folder, or a file in it.

    Returns:
        The artifact: its folder and its manifest.

    Raises:
        InputError: There is no manifest, or it is invalid.

    Example:
        ```python
        artifact = edgekit.load_artifact("build/net/torch/tflite-int8")
        print(artifact.label, artifact.manifest.route)
        ```
    """
    from edgekit.core.records.artifact import load_artifact

    folder = Path(path)
    return load_artifact(folder.parent if folder.is_file() else folder)


def _nothing() -> None:
    """End no workers: none have been started."""


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name}: must be a positive number (got {value!r})")


def _check_minimum(name: str, value: float | None, minimum: int) -> None:
    # NaN fails as well.
    if value is not None and not value >= minimum:
        raise InputError(f"{name}: must be at least {minimum} (got {value!r})")


def _name(model: str | Path | Artifact) -> str:
    return str(model) if isinstance(model, (str, Path)) else str(model.folder)


def _texts(values: ModelNames) -> tuple[str, ...]:
    """Return the values as text; a single value becomes a tuple of one."""
    return (
        tuple(map(_name, values)) if isinstance(values, Sequence) and not isinstance(values, str) else (_name(values),)
    )


def _selection(
    models: ModelNames, framework: str | None, target: str | Sequence[str], precision: str | None
) -> Selection:
    from edgekit.stages.selection import Selection

    return Selection(_texts(models), framework, _texts(target), precision)


def _by_name(samples: Array | Mapping[str, Array]) -> Mapping[str, Array]:
    # An array without a name is for the only input, as that of an npy file.
    return samples if isinstance(samples, Mapping) else {"": samples}


def _samples_file(context: Context, samples: Samples, name: str) -> Path:
    """Return the path of the samples; arrays are written to a scratch file, because a worker process reads them."""
    if isinstance(samples, (str, Path)):
        return Path(samples)
    import numpy as np

    path = context.scratch() / name
    if isinstance(samples, Mapping):
        np.savez(path.with_suffix(".npz"), **samples)  # type: ignore[arg-type]
        return path.with_suffix(".npz")
    np.save(path.with_suffix(".npy"), samples)
    return path.with_suffix(".npy")


def _check_sizes(dims: Mapping[str, int]) -> dict[str, int]:
    for dim, size in dims.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"dims: {dim}: must be a positive int (got {size!r})")
    return dict(dims)


def _budgets(
    size: int | str | None,
    peak_memory: int | str | None,
    drift: float | None,
    instructions: int | None,
    latency_ms: Mapping[str, float],
) -> tuple[Budget, ...]:
    from edgekit.core.values.tiers import TIER_NAMES
    from edgekit.stages.gates.gate import user_budgets

    for tier, limit in latency_ms.items():
        if tier not in TIER_NAMES:
            raise unknown_name("tier", tier, TIER_NAMES)
        _check_positive(f"max_latency_ms: {tier}", limit)
    _check_minimum("max_drift", drift, 0)
    _check_minimum("max_instructions", instructions, 1)
    for name, bytes_limit in (("max_size", size), ("max_peak_memory", peak_memory)):
        _check_minimum(name, None if isinstance(bytes_limit, str) else bytes_limit, 0)
    return user_budgets(
        "the arguments of check",
        size=size,
        peak_memory=peak_memory,
        drift=drift,
        instructions=instructions,
        latency_ms=tuple(latency_ms.items()),
    )


def _thresholds(
    baseline: str | Path | None, share: float | None, noisy: float | None, metric: float | None
) -> RegressionThresholds:
    from edgekit.core.records.regressions import RegressionThresholds

    default = RegressionThresholds()
    values = {"max_regression": share, "max_host_regression": noisy, "max_metric_loss": metric}
    for name, value in values.items():
        if value is not None and baseline is None:
            raise InputError(f"{name} needs a baseline to compare with")
        _check_minimum(name, value, 0)
    return RegressionThresholds(
        default.share if share is None else share,
        default.noisy if noisy is None else noisy,
        default.metric if metric is None else metric,
    )
