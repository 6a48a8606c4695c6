"""Carrying out the step graph: in parallel, nothing that is up to date, and each failure for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from edgekit.core.build.graph import Graph, Key, Record, Step
from edgekit.core.build.run_state import BLOCKED, DONE, FAILED, Book, Outcome, Ran
from edgekit.core.environment.atomic_files import os_error
from edgekit.core.errors import InputError, MissingDependency, StepError
from edgekit.core.events import Failed, Finished, Overview, Started
from edgekit.stages.concurrency import MEMORY_BYTES
from edgekit.stages.context import Context
from edgekit.stages.pipeline.step_handlers import Done, Job, Render, carry_out
from edgekit.workers.process import stop_all

_MODEL_FACTOR = 6
"""A model takes several times its size on top of what its process does."""


class StepBackend(Protocol):
    """Executes steps elsewhere than on this host, such as on the workers of a cluster."""

    def takes(self, step: Step) -> bool:
        """Whether the backend executes the step."""

    def slots(self) -> int:
        """How many steps it executes at the same time."""

    def carry_out(self, step: Step) -> Done:
        """Execute the step and wait for its result. Raises what the step raises."""

    def stop(self) -> None:
        """Stop what runs there."""


@dataclass(frozen=True)
class How:
    """Up to so many steps at once, within so much memory; `forced` takes nothing for up to date; `render` turns a
    report into text of a format; `cluster` takes steps off this host."""

    jobs: int
    memory_bytes: int
    forced: bool
    render: Render
    cluster: StepBackend | None = None


def run(context: Context, graph: Graph, book: Book, how: How) -> Ran:
    """Carries out what is not up to date. Errors of steps are in the outcomes.

    Raises Interrupted (Ctrl-C); what was done by then is kept.
    """
    started = time.monotonic()
    runner = _Runner(context, graph, book, how)
    try:
        runner.run()
    finally:
        book.digests.save()
    ordered = tuple(runner.ended[step.name] for step in graph.steps)
    return Ran(ordered, time.monotonic() - started)


@dataclass
class _Begun:
    step: Step
    key: Key
    reasons: tuple[str, ...]
    memory_bytes: int
    thread: threading.Thread | None = None


@dataclass
class _Runner:
    """The main thread starts steps and takes their results; each step has a thread, and its work happens in workers."""

    context: Context
    graph: Graph
    book: Book
    how: How
    ended: dict[str, Outcome] = field(default_factory=dict)
    ready: dict[str, _Begun] = field(default_factory=dict)
    running: dict[str, _Begun] = field(default_factory=dict)
    results: SimpleQueue[tuple[str, Done | BaseException, float]] = field(default_factory=SimpleQueue)
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
            if bad and not step.last:
                self.ended[step.name] = Outcome(step.name, step.kind, BLOCKED, (f"{bad[0]} did not get done",))
                continue
            key = self.book.key(step)
            why = self.book.reasons(step, key, self.how.forced) or tuple(f"{name} did not get done" for name in bad)
            if why:
                self.ready[step.name] = _Begun(step, key, why, self._memory(step))
            else:
                self.ended[step.name] = self.book.up_to_date(step)

    def _failed(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.ended and self.ended[name].state in (FAILED, BLOCKED)]

    def _memory(self, step: Step) -> int:
        """A rough figure of what it takes of this host's: a framework, and the model several times."""
        if step.kind in ("check", "report", "track") or self._sent(step):
            return 0
        sizes = [_size(self.context.project.root / read.path) for read in step.reads]
        return MEMORY_BYTES + _MODEL_FACTOR * max(sizes, default=0)

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
            return step.measures, step.subject != self.latest, step.subject in busy

        return next((name for name in sorted(self.ready, key=rank) if self._fits(self.ready[name])), None)

    def _sent(self, step: Step) -> bool:
        return self.how.cluster is not None and self.how.cluster.takes(step)

    def _fits(self, begun: _Begun) -> bool:
        if not self.running:
            return True
        # Also when the others are sent: the cluster's workers may be on this host.
        if any(other.step.measures != begun.step.measures for other in self.running.values()):
            return False
        sent = sum(self._sent(other.step) for other in self.running.values())
        if self.how.cluster is not None and self._sent(begun.step):
            return sent < self.how.cluster.slots()
        taken = sum(other.memory_bytes for other in self.running.values())
        return len(self.running) - sent < self.how.jobs and taken + begun.memory_bytes <= self.how.memory_bytes

    def _work(self, step: Step) -> None:
        started = time.perf_counter()
        result: Done | BaseException
        try:
            if self.how.cluster is not None and self._sent(step):
                result = self.how.cluster.carry_out(step)
            else:
                result = carry_out(Job(self.context, self.graph, step, self._failed(step.after), self.how.render))
        except OSError as error:
            result = os_error(error, self.context.project.root / step.output)
        except BaseException as error:  # noqa: BLE001 - the main thread decides what becomes of it
            result = error
        self.results.put((step.name, result, time.perf_counter() - started))

    def _end(self, name: str, result: Done | BaseException, seconds: float) -> None:
        begun = self.running.pop(name)
        self.latest = begun.step.subject
        if isinstance(result, Done):
            self.ended[name] = self._kept(begun, result, seconds)
            self.context.emit(Finished(name, result.detail))
        elif isinstance(result, (InputError, MissingDependency, StepError)):
            self.context.failures.append(result)
            code = result.exit_code
            self.ended[name] = Outcome(name, begun.step.kind, FAILED, begun.reasons, seconds, code, str(result))
            self.context.emit(Failed(name, str(result), getattr(result, "stderr_tail", "")))
        else:
            raise result

    def _kept(self, begun: _Begun, done: Done, seconds: float) -> Outcome:
        """Writes the record of a step that was carried out."""
        root, step = self.context.project.root, begun.step
        seconds = seconds if done.seconds is None else done.seconds
        outputs = {str(path.relative_to(root) if path.is_relative_to(root) else path): path for path in done.files}
        record = Record(
            step.name,
            step.kind,
            begun.key,
            {name: self.book.digests.of(name) for name in outputs},
            seconds,
            done.code,
            done.detail,
            tuple(self._failed(step.after)),
        )
        self.book.records.save(record)
        waited_s = self.context.pool.waited_s.get(step.name, done.waited_s)
        return Outcome(step.name, step.kind, DONE, begun.reasons, seconds, done.code, done.detail, waited_s)

    def _tell(self) -> None:
        waiting = [step.name for step in self.graph.steps if step.name not in self.ended | self.running]
        counts = len(self.ended), len(self.graph.steps)
        self.context.emit(Overview("", *counts, tuple(self.running), tuple(waiting)))

    def _stop(self) -> None:
        """Ends what runs and waits for its threads: they remove what is half written."""
        self.context.pool.stop()
        if self.how.cluster is not None:
            self.how.cluster.stop()
        for begun in self.running.values():
            while begun.thread is not None and begun.thread.is_alive():
                stop_all()  # again: a thread may have been about to start a process
                begun.thread.join(0.05)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
