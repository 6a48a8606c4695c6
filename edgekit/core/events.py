"""Progress events that stages emit; only the command line prints them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """Base class of all events.

    Attributes:
        step: Name of the step, for example `export simple_cnn/keras tflite:int8`.
    """

    step: str


@dataclass(frozen=True)
class StartEvent(Event):
    """Start of a step."""


@dataclass(frozen=True)
class ProgressEvent(Event):
    """Progress within a step.

    Attributes:
        done: Completed units (epochs, batches).
        total: All units of the step.
        figures: Latest loss and metrics by name.
    """

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FinishEvent(Event):
    """Successful end of a step; `detail` summarizes its result in a few words."""

    detail: str = ""


@dataclass(frozen=True)
class FailEvent(Event):
    """End of a step with an error; other steps continue.

    Attributes:
        detail: The error message.
        stderr_tail: Last lines of the worker's standard error.
        parameters: The arguments that the user can pass to avoid the error, as `edgekit.api` spells them.
    """

    detail: str = ""
    stderr_tail: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoteEvent(Event):
    """Note or warning that does not stop the step.

    Attributes:
        detail: The text.
        warning: Whether the user should act on it.
        parameters: The arguments that the user can pass to change it, as `edgekit.api` spells them.
    """

    detail: str = ""
    warning: bool = False
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogEvent(Event):
    """Record that a worker has logged; the command's own loggers handle it.

    Attributes:
        level: Level as a number of the module `logging`.
        logger: Name of the logger.
        message: The text, with its arguments filled in.
        created: Time since the epoch, in s.
    """

    level: int
    logger: str
    message: str
    created: float


@dataclass(frozen=True)
class OverviewEvent(Event):
    """State of a run of several steps.

    Attributes:
        done: Number of completed steps.
        total: Number of all steps.
        running: Names of the steps that run now.
        waiting: Names of the steps that have not started.
    """

    done: int
    total: int
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Discard the event; the default listener."""
