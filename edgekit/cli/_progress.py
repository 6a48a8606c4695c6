"""Print events as lines on stderr, with progress bars on a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any

import click

from edgekit.cli._session import option_hint
from edgekit.core.escape import terminal, visible
from edgekit.core.events import Event, FailEvent, FinishEvent, NoteEvent, OverviewEvent, ProgressEvent, StartEvent
from edgekit.core.units import format_seconds

QUIET, NORMAL, VERBOSE = -1, 0, 1


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


class Watcher:
    """Event listener that prints to stderr.

    QUIET prints warnings and failures, NORMAL also finished steps and notes, VERBOSE also the stderr of failed workers.
    On a terminal, each running step has a progress bar, and a pipeline has one for all its steps. Events may come from
    several threads.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        # The first overview: its time, and the number of steps that were complete by then.
        self._started: tuple[float, int] | None = None
        self._lock = threading.Lock()

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: Event) -> None:
        """Print an event."""
        with self._lock:
            self._show(event)

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
        started, done_before = self._started
        left = remaining_seconds(now - started, event.done - done_before, event.total - event.done)
        figures = "" if left is None else f"about {format_seconds(left)} left,"
        self._tasks[""] = self._bar.add_task(text, total=event.total, completed=event.done, figures=figures)
        self._bar.tasks[-1].start_time = started  # elapsed time of the run, not of this bar

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
