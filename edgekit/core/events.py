"""What stages tell whoever watches them. Stages return values and emit events; only the command line prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """Base of all events. `step` names what is being done, as a person would: `export simple_cnn/keras tflite:int8`."""

    step: str


@dataclass(frozen=True)
class Started(Event):
    """A step begins."""


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` units (epochs, batches) are finished; `figures` are the latest loss and metrics."""

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished(Event):
    """A step ended well; `detail` is its result in a few words."""

    detail: str = ""


@dataclass(frozen=True)
class Failed(Event):
    """A step ended with an error, and the others go on; `detail` is the sentence."""

    detail: str = ""
    stderr_tail: str = ""


@dataclass(frozen=True)
class Noted(Event):
    """Something worth a sentence that stops nothing."""

    detail: str = ""
    warning: bool = False


@dataclass(frozen=True)
class Overview(Event):
    """Where a run of several steps stands: how many of `total` are done, what runs, and what waits."""

    done: int
    total: int
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that listens to nothing."""
