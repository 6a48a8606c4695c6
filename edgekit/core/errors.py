"""Every error that edgekit raises on purpose.

EdgekitError
├── InputError              2   what a person handed in is wrong: an argument, a file, a folder
├── MissingDependency       3   a package or a tool is not installed
└── StepError               4   a step could not be finished
    ├── StepFailed              it raised: a converter refused, a runtime rejected the file
    ├── StepCrashed             its process died: a signal, or an exit without an answer
    ├── StepOutOfMemory         it asked for more memory than there is or than it may have
    ├── StepTimedOut            it hung, or took longer than it was given
    └── DiskFull                there is no room for what it writes
Interrupted                 130 Ctrl-C or SIGTERM (a KeyboardInterrupt, so that no `except Exception` eats it)

A check that fails (equivalence, drift, budget) is a value, a `Verdict`, and not an error: exit code 1.
Errors of other libraries are mapped to these at one boundary, where a worker answers its parent.
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_OK = 0
EXIT_CHECK_FAILED = 1


class EdgekitError(Exception):
    """Base of all of them. `str(error)` is one sentence for a person."""

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """What crosses a process boundary, and what `--json` shows."""
        fields = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return {"type": type(self).__name__, **fields}


class InputError(EdgekitError):
    """An argument, a file or a folder that a person named is not what it should be."""

    exit_code = 2


class MissingDependency(EdgekitError):
    """A package or a tool is missing; the message gives the command that installs it."""

    exit_code = 3


class StepError(EdgekitError):
    """A step could not be finished.

    `step` names it; `stderr_tail` holds the last lines that its process wrote, for `--verbose` and for reports.
    """

    exit_code = 4

    def __init__(self, message: str, *, step: str = "", stderr_tail: str = "") -> None:
        super().__init__(message)
        self.step = step
        self.stderr_tail = stderr_tail


class StepFailed(StepError):
    """The step raised an exception: the converter refused, the runtime rejected the file."""


class StepCrashed(StepError):
    """The process of the step died without an answer."""

    def __init__(self, message: str, *, step: str = "", stderr_tail: str = "", signal: str = "") -> None:
        super().__init__(message, step=step, stderr_tail=stderr_tail)
        self.signal = signal


class StepOutOfMemory(StepError):
    """The step asked for more memory than there is, or than it was allowed."""


class StepTimedOut(StepError):
    """The step took longer than it was given, and was killed."""


class DiskFull(StepError):
    """There is no room left for what the step writes."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: stop, leave nothing half done."""

    exit_code: ClassVar[int] = 130


def unknown_name(kind: str, name: str, known: list[str] | tuple[str, ...]) -> InputError:
    """The error for a name that is not among the known ones; it lists them, and guesses nothing."""
    listed = ", ".join(sorted(known)) or "none"
    return InputError(f"unknown {kind} '{name}'; known: {listed}")


def from_dict(data: dict[str, Any]) -> EdgekitError:
    """The error that `to_dict` described. An unknown type becomes a plain StepFailed."""
    fields = {key: str(data[key]) for key in ("step", "stderr_tail") if key in data}
    message = str(data.get("message", ""))
    for cls in (InputError, MissingDependency):
        if data.get("type") == cls.__name__:
            return cls(message)
    if data.get("type") == StepCrashed.__name__:
        return StepCrashed(message, **fields, signal=str(data.get("signal", "")))
    for step_cls in (StepOutOfMemory, StepTimedOut, DiskFull, StepFailed):
        if data.get("type") == step_cls.__name__:
            return step_cls(message, **fields)
    return StepFailed(message)
