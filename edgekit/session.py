"""The session of the Python API: an open project with worker processes that several calls share."""

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

# Loaded where they are used: importing this module costs no numpy, no pydantic and no plug-in.
if TYPE_CHECKING:
    from edgekit.core.numerics.metrics import Array
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.check_result import CheckResult
    from edgekit.core.records.measurement import Measurement
    from edgekit.core.records.regressions import RegressionThresholds
    from edgekit.core.records.validation import Validation
    from edgekit.core.values.budgets import Budget
    from edgekit.stages.context import Context
    from edgekit.stages.selection import Selection
    from edgekit.stages.validation.compare import Equivalence
    from edgekit.workers.pool import WorkerPool

# As strings, because their parts are imported for type checkers only.
ModelNames: TypeAlias = "str | Path | Artifact | Sequence[str | Path | Artifact]"
Samples: TypeAlias = "str | Path | Array | Mapping[str, Array]"

# Default time limit in seconds of a step, as for the commands and the functions of `edgekit.api`.
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
        signature: str | None = None,
        dims: Mapping[str, int] | None = None,
        fixed: Mapping[str, float] | None = None,
        preprocess: str | Sequence[str] = (),
        layout: str | None = None,
        options: Mapping[str, int] | None = None,
        recipe: str | Path | None = None,
        repair: bool = True,
        inference_input_type: str | None = None,
        inference_output_type: str | None = None,
        per_tensor: bool = False,
        symmetric_activations: bool = False,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        preset: str | None = None,
        route: str | None = None,
        name: str | None = None,
        root: str | Path | None = None,
    ) -> tuple[Artifact, ...]:
        """Convert a model, as `edgekit.export` does."""
        from edgekit.core.values.quantization_form import QuantizationForm
        from edgekit.stages.conversion.export import export
        from edgekit.stages.conversion.export_request import export_request, plan_exports
        from edgekit.stages.models.model_refs import UserModelOptions

        with self.context(root) as context:
            model_options = UserModelOptions(
                name,
                None if weights is None else Path(weights),
                _texts(inputs),
                None if sample is None else _samples_file(context, sample, "sample"),
                None if calibration is None else _calibration(context, calibration),
                _check_sizes(dims or {}),
                image_range,
                signature,
                _check_values(fixed or {}),
                _texts(preprocess),
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
                repair=repair,
                route=route,
                form=QuantizationForm(
                    inference_input_type,
                    inference_output_type,
                    per_tensor,
                    symmetric_activations,
                    dict(ranges or {}),
                    preset,
                ),
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
        from edgekit.stages.validation.validate_on_devices import validate_at

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
        fixed: Mapping[str, float] | None = None,
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
                fixed=_check_values(fixed or {}),
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
            selected = artifacts(context, _selection(models, framework, target, precision), files=True)
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


def _calibration(context: Context, calibration: Samples) -> str:
    """Return the calibration as it is typed on a command line."""
    if isinstance(calibration, str):
        return calibration
    # A path is a file, whatever its name is.
    return str(_samples_file(context, calibration, "calibration").absolute())


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


def _check_values(fixed: Mapping[str, float]) -> dict[str, float]:
    for name, value in fixed.items():
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise InputError(f"fixed: {name}: must be a finite number, True or False (got {value!r})")
    return dict(fixed)


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
