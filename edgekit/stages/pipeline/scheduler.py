"""Executes a step graph in parallel; up-to-date steps are skipped, and a failure blocks only its dependents."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from edgekit.core.build.graph import Graph, Step, StepKey, StepRecord
from edgekit.core.build.run_state import BLOCKED, DONE, FAILED, RunResult, RunState, StepResult
from edgekit.core.environment.atomic_files import os_error
from edgekit.core.errors import InputError, MissingDependency, StepError
from edgekit.core.events import FailEvent, FinishEvent, OverviewEvent, StartEvent
from edgekit.core.logs import log_step
from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import Render, StepContext, StepOutput, execute_step
from edgekit.workers.process import stop_all

_log = logging.getLogger(__name__)

# A conversion needs several times the model's size in addition to the framework: it holds the model in several forms.
_MODEL_FACTOR = 6


class StepBackend(Protocol):
    """Executes steps elsewhere than on this host, such as on the workers of a cluster."""

    def takes(self, step: Step) -> bool:
        """Return whether the backend executes the step."""

    def slots(self) -> int:
        """Return how many steps it executes at the same time."""

    def execute_step(self, step: Step) -> StepOutput:
        """Execute the step and wait for its result.

        Args:
            step: A step that the backend takes.

        Returns:
            The step's result.

        Raises:
            EdgekitError: Any error of the step.
        """

    def stop(self) -> None:
        """Stop what runs there."""


@dataclass(frozen=True)
class RunOptions:
    """How a graph is executed.

    Attributes:
        jobs: The largest number of steps that run on this host at the same time.
        memory_bytes: The memory that these steps may use together, by estimate.
        forced: Whether steps run even when they are up to date.
        render: Turns a report into the text of a format.
        cluster: Executes steps elsewhere, or None.
    """

    jobs: int
    memory_bytes: int
    forced: bool
    render: Render
    cluster: StepBackend | None = None


def run_graph(context: Context, graph: Graph, state: RunState, options: RunOptions) -> RunResult:
    """Execute the steps that are not up to date.

    Args:
        context: The project, the workers and the event listener.
        graph: The graph.
        state: The state of earlier runs, which is updated.
        options: How the graph is executed.

    Returns:
        The result of every step in the order of the graph; errors of steps are part of it.

    Raises:
        Interrupted: The user pressed Ctrl-C. Steps that were completed are recorded.
    """
    started = time.monotonic()
    runner = _Runner(context, graph, state, options)
    try:
        runner.run()
    finally:
        state.digests.save()
    ordered = tuple(runner.ended[step.name] for step in graph.steps)
    return RunResult(ordered, time.monotonic() - started)


@dataclass
class RunningStep:
    """A step that has to run.

    Attributes:
        step: The step.
        key: Its key: the digest of everything that its result depends on.
        reasons: Why it is not up to date.
        memory_bytes: The memory that it may take on this host, by estimate.
        thread: The thread that executes it, once it was started.
    """

    step: Step
    key: StepKey
    reasons: tuple[str, ...]
    memory_bytes: int
    thread: threading.Thread | None = None


@dataclass
class _Runner:
    """Starts steps and collects their results in the main thread; each step has a thread that waits for its worker."""

    context: Context
    graph: Graph
    state: RunState
    options: RunOptions
    ended: dict[str, StepResult] = field(default_factory=dict)
    ready: dict[str, RunningStep] = field(default_factory=dict)
    running: dict[str, RunningStep] = field(default_factory=dict)
    results: SimpleQueue[tuple[str, StepOutput | BaseException, float]] = field(default_factory=SimpleQueue)
    latest: str = ""  # the subject of the step that ended last

    def run(self) -> None:
        try:
            while len(self.ended) < len(self.graph.steps):
                self._settle()
                self._start()
                self._emit_overview()
                if self.running:
                    self._finish(*self.results.get())
        except BaseException:
            self._stop()
            raise

    def _settle(self) -> None:
        """Decide which steps must run, of those whose dependencies have ended; one pass suffices in graph order."""
        for step in self.graph.steps:
            if step.name in self.ended or step.name in self.ready or step.name in self.running:
                continue
            if any(name not in self.ended for name in step.after if name in self.graph.by_name):
                continue
            failed = self._failed(step.after)
            if failed and not step.kind.runs_last:
                self.ended[step.name] = StepResult(step.name, step.kind, BLOCKED, (f"{failed[0]} did not complete",))
                _log.warning("not started: %s did not complete", failed[0], extra={"step": step.name})
                continue
            key = self.state.key(step)
            reasons = self.state.reasons(step, key, self.options.forced)
            reasons = reasons or tuple(f"{name} did not complete" for name in failed)
            log_cache_decision(step.name, reasons)
            if reasons:
                self.ready[step.name] = RunningStep(step, key, reasons, self._memory(step))
            else:
                self.ended[step.name] = self.state.up_to_date(step)

    def _failed(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.ended and self.ended[name].state in (FAILED, BLOCKED)]

    def _memory(self, step: Step) -> int:
        """Estimate the step's memory on this host: that of a framework, and several times the model's size."""
        if not step.kind.loads_framework or self._is_remote(step):
            return 0
        sizes = [_size(self.context.project.root / read.path) for read in step.reads]
        return PROCESS_MEMORY_BYTES + _MODEL_FACTOR * max(sizes, default=0)

    def _start(self) -> None:
        """Start the ready steps that the limits allow beside the running ones."""
        while (name := self._next()) is not None:
            running_step = self.running[name] = self.ready.pop(name)
            self.context.emit(StartEvent(name))
            where = "the Dask cluster" if self._is_remote(running_step.step) else "this host"
            _log.info("runs on %s", where, extra={"step": name})
            running_step.thread = threading.Thread(target=self._work, args=(running_step.step,), name=name, daemon=True)
            running_step.thread.start()

    def _next(self) -> str | None:
        """Return the name of the step to start now, or None.

        Steps that measure wait until no other step can run. Of the others, those of the source whose step ended last
        come first, since a worker has that source and its shared intermediate models loaded; then those of sources that
        no running step uses.
        """
        busy = {running_step.step.subject for running_step in self.running.values()}

        def rank(name: str) -> tuple[bool, bool, bool]:
            step = self.ready[name].step
            return step.kind.measures, step.subject != self.latest, step.subject in busy

        return next((name for name in sorted(self.ready, key=rank) if self._fits(self.ready[name])), None)

    def _is_remote(self, step: Step) -> bool:
        return self.options.cluster is not None and self.options.cluster.takes(step)

    def _fits(self, running_step: RunningStep) -> bool:
        if not self.running:
            return True
        # This includes remote steps, since the cluster's workers may be on this host.
        if any(other.step.kind.measures != running_step.step.kind.measures for other in self.running.values()):
            return False
        n_remote = sum(self._is_remote(other.step) for other in self.running.values())
        if self.options.cluster is not None and self._is_remote(running_step.step):
            return n_remote < self.options.cluster.slots()
        used_bytes = sum(other.memory_bytes for other in self.running.values())
        return (
            len(self.running) - n_remote < self.options.jobs
            and used_bytes + running_step.memory_bytes <= self.options.memory_bytes
        )

    def _work(self, step: Step) -> None:
        started = time.perf_counter()
        result: StepOutput | BaseException
        try:
            with log_step(step.name):
                result = self._execute(step)
        except OSError as error:
            result = os_error(error, self.context.project.root / step.output)
        except BaseException as error:  # noqa: BLE001 - the main thread handles it
            result = error
        self.results.put((step.name, result, time.perf_counter() - started))

    def _execute(self, step: Step) -> StepOutput:
        if self.options.cluster is not None and self._is_remote(step):
            return self.options.cluster.execute_step(step)
        return execute_step(StepContext(self.context, self.graph, step, self._failed(step.after), self.options.render))

    def _finish(self, name: str, result: StepOutput | BaseException, seconds: float) -> None:
        running_step = self.running.pop(name)
        self.latest = running_step.step.subject
        if isinstance(result, StepOutput):
            self.ended[name] = self._record(running_step, result, seconds)
            self.context.emit(FinishEvent(name, result.detail))
        elif isinstance(result, (InputError, MissingDependency, StepError)):
            self.context.failures.append(result)
            code = result.exit_code
            self.ended[name] = StepResult(
                name, running_step.step.kind, FAILED, running_step.reasons, seconds, code, str(result)
            )
            self.context.emit(FailEvent(name, str(result), getattr(result, "stderr_tail", "")))
        else:
            raise result

    def _record(self, running_step: RunningStep, output: StepOutput, seconds: float) -> StepResult:
        """Write the record of an executed step and return its result."""
        root, step = self.context.project.root, running_step.step
        seconds = seconds if output.seconds is None else output.seconds
        outputs = {str(path.relative_to(root) if path.is_relative_to(root) else path): path for path in output.files}
        record = StepRecord(
            step.name,
            step.kind,
            running_step.key,
            {name: self.state.digests.of(name) for name in outputs},
            seconds,
            output.code,
            output.detail,
            tuple(self._failed(step.after)),
            step.arguments,
        )
        self.state.records.save(record)
        waited_s = self.context.pool.cpu_wait_s.get(step.name, output.cpu_wait_s)
        return StepResult(
            step.name, step.kind, DONE, running_step.reasons, seconds, output.code, output.detail, waited_s
        )

    def _emit_overview(self) -> None:
        waiting = [step.name for step in self.graph.steps if step.name not in self.ended | self.running]
        counts = len(self.ended), len(self.graph.steps)
        self.context.emit(OverviewEvent("", *counts, tuple(self.running), tuple(waiting)))

    def _stop(self) -> None:
        """Stop all running steps and wait for their threads, which remove partial files."""
        self.context.pool.stop()
        if self.options.cluster is not None:
            self.options.cluster.stop()
        for running_step in self.running.values():
            while running_step.thread is not None and running_step.thread.is_alive():
                stop_all()  # repeated, since a thread may have been about to start a process
                running_step.thread.join(0.05)


def log_cache_decision(step: str, reasons: Iterable[str]) -> None:
    """Log whether a step is up to date.

    Args:
        step: The step's name.
        reasons: Why it has to run; none if it is up to date.
    """
    missed = "; ".join(reasons)
    if missed:
        _log.info("has to run: %s", missed, extra={"step": step})
    else:
        _log.info("up to date: its inputs, values and outputs are those of its last run", extra={"step": step})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
