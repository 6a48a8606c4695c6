"""Events as lines on stderr, and a progress bar where stderr is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import click

from edgekit.core.events import Event, Failed, Finished, Noted, Progress, Started

QUIET, NORMAL, VERBOSE = -1, 0, 1


class Watcher:
    """A listener. Quiet: warnings and failures; normal: also each finished step; verbose: also what workers wrote."""

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._bar: Any = None
        self._task: Any = None

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
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Finished):
            self._end()
            self._line(f"done    {event.step}" + (f": {event.detail}" if event.detail else ""), NORMAL)
        elif isinstance(event, Failed):
            self._end()
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
            self._end()
            self._task = self._bar.add_task(event.step, total=None, figures="")

    def _progress(self, event: Progress) -> None:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in event.figures.items())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=event.total, completed=event.done, figures=figures)

    def _end(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _line(self, text: str, level: int) -> None:
        if self._verbosity < level:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)
