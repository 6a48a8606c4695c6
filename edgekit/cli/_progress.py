"""Events as lines on stderr, and a progress bar where stderr is a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any

import click

from edgekit.core.events import Event, Failed, Finished, Noted, Overview, Progress, Started

QUIET, NORMAL, VERBOSE = -1, 0, 1


class Watcher:
    """A listener. Quiet: warnings and failures; normal: also each finished step; verbose: also what workers wrote.

    On a terminal each running step has a line, and a run of several steps one more that says what waits. Events may
    come from several threads.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._started: float | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Watcher:
        if self._verbosity >= NORMAL and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(20),
                TextColumn("{task.fields[figures]}"),
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
        """Shows one event."""
        with self._lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Overview):
            self._overview(event)
        elif isinstance(event, Finished):
            self._end(event.step)
            self._line(f"done    {event.step}" + (f": {event.detail}" if event.detail else ""), NORMAL)
        elif isinstance(event, Failed):
            self._end(event.step)
            self._line(f"failed  {event.detail}", QUIET)
            if event.stderr_tail and self._verbosity >= VERBOSE:
                self._line(event.stderr_tail, VERBOSE)
        elif isinstance(event, Noted):
            self._line(
                f"{'warning' if event.warning else 'note   '} {event.step}: {event.detail}",
                QUIET if event.warning else NORMAL,
            )

    def _start(self, event: Started) -> None:
        if self._bar is not None:
            self._end(event.step)
            self._tasks[event.step] = self._bar.add_task(event.step, total=None, figures="")

    def _progress(self, event: Progress) -> None:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in event.figures.items())
        if self._bar is not None and event.step in self._tasks:
            self._bar.update(self._tasks[event.step], total=event.total, completed=event.done, figures=figures)

    def _overview(self, event: Overview) -> None:
        """The last line: how far the run is, and which steps come next."""
        if self._bar is None:
            return
        self._end("")
        text = f"{event.done} of {event.total} steps"
        if event.waiting:
            text += f", {len(event.waiting)} wait: {event.waiting[0]}" + (" …" if len(event.waiting) > 1 else "")
        started = self._started or self._bar.get_time()
        self._started = started
        self._tasks[""] = self._bar.add_task(text, total=event.total, completed=event.done, figures="")
        self._bar.tasks[-1].start_time = started  # the whole run's time, not this line's

    def _end(self, step: str) -> None:
        task = self._tasks.pop(step, None)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)

    def _line(self, text: str, level: int) -> None:
        if self._verbosity < level:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)
