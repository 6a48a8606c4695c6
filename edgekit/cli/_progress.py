"""Print events as lines on stderr, with progress bars on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

import click

from edgekit.cli._session import option_hint
from edgekit.core.escape import terminal, visible
from edgekit.core.events import Event, FailEvent, FinishEvent, NoteEvent, OverviewEvent, ProgressEvent, StartEvent
from edgekit.core.units import format_seconds

QUIET, NORMAL, VERBOSE = -1, 0, 1

# Without a terminal, seconds after which a step that runs gets a line, and between two lines of all that runs: a log
# shows what a command waits for, and is not filled by it.
LINE_AFTER_S, LINE_EVERY_S = 2.0, 30.0
# Seconds between two looks at what runs.
_LOOK_EVERY_S = 0.5


def remaining_seconds(elapsed_s: float, done: int, left: int) -> float | None:
    """Estimate the time that is left, as if each step took as long as those that are done did on average.

    Args:
        elapsed_s: The time that these steps took, in s.
        done: The number of steps that are done.
        left: The number of steps that are left.

    Returns:
        The time in s; None for less than two completed steps, from which little follows.
    """
    return elapsed_s / done * left if done >= 2 else None


class _RunningLines:
    """What runs, and the lines that say so where no progress bar does."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        # By step that runs: when it started, and how far it is.
        self._running: dict[str, tuple[float, ProgressEvent | None]] = {}
        # Steps that have had a line, and the time of the last lines of all that runs.
        self._shown: set[str] = set()
        self._last = 0.0
        self._overview: OverviewEvent | None = None
        # The time of the first overview, and the number of steps that were complete by then.
        self._first: tuple[float, int] | None = None

    def update(self, event: Event, now: float) -> None:
        """Note what an event says.

        Args:
            event: The event.
            now: The time in s.
        """
        if isinstance(event, StartEvent):
            self._running[event.step] = now, None
            self._last = self._last or now
        elif isinstance(event, ProgressEvent) and event.step in self._running:
            self._running[event.step] = self._running[event.step][0], event
        elif isinstance(event, FinishEvent | FailEvent):
            self._running.pop(event.step, None)
            self._shown.discard(event.step)
        elif isinstance(event, OverviewEvent):
            self._overview = event
            self._first = self._first or (now, event.done)

    def due(self, now: float) -> list[str]:
        """Return the lines to print: one for a step that has run for a while, and from time to time one for each.

        Args:
            now: The time in s.
        """
        again = now - self._last >= LINE_EVERY_S
        lines = []
        for step, (start, progress) in self._running.items():
            elapsed = now - start
            if elapsed >= self._after_s and (again or step not in self._shown):
                lines.append(_running_line(step, progress, elapsed if step in self._shown else None))
                self._shown.add(step)
        if again:
            self._last = now
            if lines and self._overview is not None and self._first is not None:
                lines.append(_overview_line(self._overview, self._first, now))
        return lines


def _running_line(step: str, progress: ProgressEvent | None, elapsed_s: float | None) -> str:
    parts = [] if progress is None else [f"{progress.done} of {progress.total}"]
    if progress is not None:
        parts += [f"{name} {value:.4f}" for name, value in progress.figures.items()]
    if elapsed_s is not None:
        parts.append(f"for {format_seconds(elapsed_s)}")
    return f"running {step}" + (f": {', '.join(parts)}" if parts else "")


def _overview_line(event: OverviewEvent, first: tuple[float, int], now: float) -> str:
    estimate = _time_left(event, first, now)
    return f"{event.done} of {event.total} steps done" + (f", {estimate}" if estimate else "")


def _time_left(event: OverviewEvent, first: tuple[float, int], now: float) -> str:
    """Return about how long the steps that are not done take, empty while too few are; `first` is the time of the first
    overview in s, and the number of steps that were done by then."""
    left = remaining_seconds(now - first[0], event.done - first[1], event.total - event.done)
    return "" if left is None else f"about {format_seconds(left)} left"


class Watcher:
    """Event listener that prints to stderr.

    QUIET prints warnings and failures, NORMAL also finished steps and notes, VERBOSE also the stderr of failed workers.
    On a terminal, each running step has a progress bar, and a pipeline has one for all its steps. Otherwise a step that
    takes longer has a line at NORMAL, and another one every half minute with how far it is. Events may come from
    several threads.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        # The first overview: its time, and the number of steps that were complete by then.
        self._started: tuple[float, int] | None = None
        self._lock = threading.Lock()
        self._lines = _RunningLines(LINE_AFTER_S)
        self._ended = threading.Event()
        self._looking: threading.Thread | None = None

    def __enter__(self) -> Watcher:
        if self._verbosity >= NORMAL and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(20),
                TextColumn("{task.fields[figures]}", markup=False),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        elif self._verbosity >= NORMAL:
            self._looking = threading.Thread(target=self._look, name="progress", daemon=True)
            self._looking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._looking is not None:
            self._ended.set()
            self._looking.join()

    def __call__(self, event: Event) -> None:
        """Print an event."""
        with self._lock:
            self._lines.update(event, time.monotonic())
            self._show(event)

    def _look(self) -> None:
        """Print lines of what runs, until the block ends."""
        while not self._ended.wait(_LOOK_EVERY_S):
            with self._lock:
                for line in self._lines.due(time.monotonic()):
                    self._print_line(line, NORMAL)

    def _show(self, event: Event) -> None:
        if isinstance(event, StartEvent):
            self._start(event)
        elif isinstance(event, ProgressEvent):
            self._progress(event)
        elif isinstance(event, OverviewEvent):
            self._overview(event)
        elif isinstance(event, FinishEvent):
            self._remove_bar(event.step)
            self._print_line(f"done    {event.step}" + (f": {event.detail}" if event.detail else ""), NORMAL)
        elif isinstance(event, FailEvent):
            self._remove_bar(event.step)
            self._print_line(f"failed  {event.detail}{option_hint(event.parameters)}", QUIET)
            if event.stderr_tail and self._verbosity >= VERBOSE:
                self._print_line(terminal(event.stderr_tail), VERBOSE)
        elif isinstance(event, NoteEvent):
            kind, level = ("warning", QUIET) if event.warning else ("note   ", NORMAL)
            self._print_line(f"{kind} {event.step}: {event.detail}{option_hint(event.parameters)}", level)

    def _start(self, event: StartEvent) -> None:
        if self._bar is not None:
            self._remove_bar(event.step)
            self._tasks[event.step] = self._bar.add_task(visible(event.step), total=None, figures="")

    def _progress(self, event: ProgressEvent) -> None:
        figures = "  ".join(f"{visible(name)} {value:.4f}" for name, value in event.figures.items())
        if self._bar is not None and event.step in self._tasks:
            self._bar.update(self._tasks[event.step], total=event.total, completed=event.done, figures=figures)

    def _overview(self, event: OverviewEvent) -> None:
        """Replace the last progress bar: completed steps of the run, and the waiting ones."""
        if self._bar is None:
            return
        self._remove_bar("")
        text = f"{event.done} of {event.total} steps"
        if event.waiting:
            more = " …" if len(event.waiting) > 1 else ""
            text += f", {len(event.waiting)} wait: {visible(event.waiting[0])}{more}"
        now = self._bar.get_time()
        self._started = self._started or (now, event.done)
        estimate = _time_left(event, self._started, now)
        figures = f"{estimate}," if estimate else ""
        self._tasks[""] = self._bar.add_task(text, total=event.total, completed=event.done, figures=figures)
        self._bar.tasks[-1].start_time = self._started[0]  # elapsed time of the run, not of this bar

    def _remove_bar(self, step: str) -> None:
        task = self._tasks.pop(step, None)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)

    def _print_line(self, text: str, level: int) -> None:
        self._print(visible(text), level)

    def _print(self, text: str, level: int) -> None:
        if self._verbosity < level:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)
