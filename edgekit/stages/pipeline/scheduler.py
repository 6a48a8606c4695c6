"""Carrying out the step graph: in parallel, nothing that is up to date, and each failure for itself."""

from __future__ import annotations

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
from edgekit.core.events import Failed, Finished, Overview, Started
from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import Render, StepContext, StepOutput, execute_step
from edgekit.workers.process import stop_all

_MODEL_FACTOR = 6
"""A model takes several times its size on top of what its process does."""


class StepBackend(Protocol):
    """Executes steps elsewhere than on this host, such as on the workers of a cluster."""

    def takes(self, step: Step) -> bool:
        """Whether the backend executes the step."""

    def slots(self) -> int:
        """How many steps it executes at the same time."""

    def execute_step(self, step: Step) -> StepOutput:
        """Execute the step and wait for its result. Raises what the step raises."""

    def stop(self) -> None:
        """Stop what runs there."""


@dataclass(frozen=True)
class RunOptions:
    """Up to so many steps at once, within so much memory; `forced` takes nothing for up to date; `render` turns a
    report into text of a format; `cluster` takes steps off this host."""

    jobs: int
    memory_bytes: int
    forced: bool
    render: Render
    cluster: StepBackend | None = None


def run_graph(context: Context, graph: Graph, book: RunState, options: RunOptions) -> RunResult:
    """Carries out what is not up to date. Errors of steps are in the outcomes.

    Raises Interrupted (Ctrl-C); what was done by then is kept.
    """
    started = time.monotonic()
    runner = _Runner(context, graph, book, options)
    try:
        runner.run()
    finally:
        book.digests.save()
    ordered = tuple(runner.ended[step.name] for step in graph.steps)
    return RunResult(ordered, time.monotonic() - started)


@dataclass
class RunningStep:
    """A step that has to run: why, and how much memory it may take. `thread` is set once it runs."""

    step: Step
    key: StepKey
    reasons: tuple[str, ...]
    memory_bytes: int
    thread: threading.Thread | None = None


@dataclass
class _Runner:
    """The main thread starts steps and takes their results; each step has a thread, and its work happens in workers."""

    context: Context
    graph: Graph
    book: RunState
    options: RunOptions
    ended: dict[str, StepResult] = field(default_factory=dict)
    ready: dict[str, RunningStep] = field(default_factory=dict)
    running: dict[str, RunningStep] = field(default_factory=dict)
    results: SimpleQueue[tuple[str, StepOutput | BaseException, float]] = field(default_factory=SimpleQueue)
    latest: str = ""
    """The subject of the step that ended last."""

    def run(self) -> None:
        try:
            while len(self.ended) < len(self.graph.steps):
                self._settle()
                self._start()
                self._tell()
                if self.running:
                    self._end(*self.results.get())
        except BaseException:
            self._stop()
            raise

    def _settle(self) -> None:
        """Finds out which of the steps whose turn has come have to run. Steps are in order: one pass sees all."""
        for step in self.graph.steps:
            if step.name in self.ended or step.name in self.ready or step.name in self.running:
                continue
            if any(name not in self.ended for name in step.after if name in self.graph.by_name):
                continue
            bad = self._failed(step.after)
            if bad and not step.kind.runs_last:
                self.ended[step.name] = StepResult(step.name, step.kind, BLOCKED, (f"{bad[0]} did not get done",))
                continue
            key = self.book.key(step)
            why = self.book.reasons(step, key, self.options.forced) or tuple(f"{name} did not get done" for name in bad)
            if why:
                self.ready[step.name] = RunningStep(step, key, why, self._memory(step))
            else:
                self.ended[step.name] = self.book.up_to_date(step)

    def _failed(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.ended and self.ended[name].state in (FAILED, BLOCKED)]

    def _memory(self, step: Step) -> int:
        """A rough figure of what it takes of this host's: a framework, and the model several times."""
        if not step.kind.loads_framework or self._sent(step):
            return 0
        sizes = [_size(self.context.project.root / read.path) for read in step.reads]
        return PROCESS_MEMORY_BYTES + _MODEL_FACTOR * max(sizes, default=0)

    def _start(self) -> None:
        """Starts what fits beside what runs."""
        while (name := self._next()) is not None:
            begun = self.running[name] = self.ready.pop(name)
            self.context.emit(Started(name))
            begun.thread = threading.Thread(target=self._work, args=(begun.step,), name=name, daemon=True)
            begun.thread.start()

    def _next(self) -> str | None:
        """What to start now. What measures waits until there is nothing else to do.

        Of the others, first what is about the source that a step has just ended with, whose worker has it loaded, and
        with it all that its variants share; else what is about one that no running step has.
        """
        busy = {begun.step.subject for begun in self.running.values()}

        def rank(name: str) -> tuple[bool, bool, bool]:
            step = self.ready[name].step
            return step.kind.measures, step.subject != self.latest, step.subject in busy

        return next((name for name in sorted(self.ready, key=rank) if self._fits(self.ready[name])), None)

    def _sent(self, step: Step) -> bool:
        return self.options.cluster is not None and self.options.cluster.takes(step)

    def _fits(self, begun: RunningStep) -> bool:
        if not self.running:
            return True
        # Also when the others are sent: the cluster's workers may be on this host.
        if any(other.step.kind.measures != begun.step.kind.measures for other in self.running.values()):
            return False
        sent = sum(self._sent(other.step) for other in self.running.values())
        if self.options.cluster is not None and self._sent(begun.step):
            return sent < self.options.cluster.slots()
        taken = sum(other.memory_bytes for other in self.running.values())
        return len(self.running) - sent < self.options.jobs and taken + begun.memory_bytes <= self.options.memory_bytes

    def _work(self, step: Step) -> None:
        started = time.perf_counter()
        result: StepOutput | BaseException
        try:
            if self.options.cluster is not None and self._sent(step):
                result = self.options.cluster.execute_step(step)
            else:
                result = execute_step(
                    StepContext(self.context, self.graph, step, self._failed(step.after), self.options.render)
                )
        except OSError as error:
            result = os_error(error, self.context.project.root / step.output)
        except BaseException as error:  # noqa: BLE001 - the main thread decides what becomes of it
            result = error
        self.results.put((step.name, result, time.perf_counter() - started))

    def _end(self, name: str, result: StepOutput | BaseException, seconds: float) -> None:
        begun = self.running.pop(name)
        self.latest = begun.step.subject
        if isinstance(result, StepOutput):
            self.ended[name] = self._kept(begun, result, seconds)
            self.context.emit(Finished(name, result.detail))
        elif isinstance(result, (InputError, MissingDependency, StepError)):
            self.context.failures.append(result)
            code = result.exit_code
            self.ended[name] = StepResult(name, begun.step.kind, FAILED, begun.reasons, seconds, code, str(result))
            self.context.emit(Failed(name, str(result), getattr(result, "stderr_tail", "")))
        else:
            raise result

    def _kept(self, begun: RunningStep, done: StepOutput, seconds: float) -> StepResult:
        """Writes the record of a step that was carried out."""
        root, step = self.context.project.root, begun.step
        seconds = seconds if done.seconds is None else done.seconds
        outputs = {str(path.relative_to(root) if path.is_relative_to(root) else path): path for path in done.files}
        record = StepRecord(
            step.name,
            step.kind,
            begun.key,
            {name: self.book.digests.of(name) for name in outputs},
            seconds,
            done.code,
            done.detail,
            tuple(self._failed(step.after)),
            step.arguments,
        )
        self.book.records.save(record)
        waited_s = self.context.pool.cpu_wait_s.get(step.name, done.cpu_wait_s)
        return StepResult(step.name, step.kind, DONE, begun.reasons, seconds, done.code, done.detail, waited_s)

    def _tell(self) -> None:
        waiting = [step.name for step in self.graph.steps if step.name not in self.ended | self.running]
        counts = len(self.ended), len(self.graph.steps)
        self.context.emit(Overview("", *counts, tuple(self.running), tuple(waiting)))

    def _stop(self) -> None:
        """Ends what runs and waits for its threads: they remove what is half written."""
        self.context.pool.stop()
        if self.options.cluster is not None:
            self.options.cluster.stop()
        for begun in self.running.values():
            while begun.thread is not None and begun.thread.is_alive():
                stop_all()  # again: a thread may have been about to start a process
                begun.thread.join(0.05)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
