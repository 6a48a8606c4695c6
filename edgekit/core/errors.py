"""The exceptions that edgekit raises, with their exit codes.

EdgekitError
├── InputError              2   an argument, a file or a folder is invalid
├── MissingDependency       3   a package or a tool is not installed
└── StepError               4   a step could not be completed
    ├── StepFailed              the step raised: a converter or a runtime rejected the model
    │   └── StepDenied          the model, or what opened it, tried what a confined worker may not do
    ├── StepCrashed             the worker process died: a signal, or an exit without a result
    ├── StepOutOfMemory         the step exceeded the machine's memory or its own memory limit
    ├── StepTimedOut            the step exceeded its time limit
    ├── DiskFull                the disk is full
    └── InternalError           an unexpected error; its traceback is in a log
Interrupted                 130 Ctrl-C or SIGTERM

A failed check (equivalence, drift, budget) is a value (`Verdict`), not an exception; its exit code is 1.
Exceptions of other libraries are mapped to these classes where a worker answers its parent process
(`edgekit.workers._worker_main`); the death of a process becomes one in `edgekit.workers.process`.
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_OK = 0
EXIT_CHECK_FAILED = 1


class EdgekitError(Exception):
    """Base class of all errors.

    Attributes:
        exit_code: Exit code of a command that ends with this error.
        message: One sentence for the user; also the value of `str(error)`.
        parameters: The arguments that the user can pass to avoid the error, as `edgekit.api` spells them. The message
            does not name them, since the command line spells them otherwise and prints its own options.
    """

    # Subclasses override it; 4 (a step failed) is the default, as for any error that is not the user's.
    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, parameters: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.parameters = parameters

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the class name and all public fields, for a process boundary and for `--json`."""
        fields = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        if not self.parameters:
            del fields["parameters"]
        return {"type": type(self).__name__, **fields}


class InputError(EdgekitError):
    """An invalid argument, file or folder."""

    exit_code = 2


class MissingDependency(EdgekitError):
    """A missing package or tool; the message contains the command that installs it."""

    exit_code = 3


class StepError(EdgekitError):
    """A step that could not be completed.

    Attributes:
        step: Name of the step, for example `export simple_cnn/keras tflite:int8`.
        stderr_tail: Last lines of the worker's standard error, for `--verbose` and for reports.
    """

    exit_code = 4

    def __init__(self, message: str, *, step: str = "", stderr_tail: str = "") -> None:
        super().__init__(message)
        self.step = step
        self.stderr_tail = stderr_tail


class StepFailed(StepError):
    """A step that raised an exception: the converter or the runtime rejected the model."""


class StepDenied(StepFailed):
    """A step whose confined worker tried to write outside its folders, to use the network or to start a program."""


class StepCrashed(StepError):
    """A step whose process died without a result.

    Attributes:
        signal: Name of the signal that ended the process, for example `SIGSEGV`; empty where it exited by itself.
    """

    def __init__(self, message: str, *, step: str = "", stderr_tail: str = "", signal: str = "") -> None:
        super().__init__(message, step=step, stderr_tail=stderr_tail)
        self.signal = signal


class StepOutOfMemory(StepError):
    """A step that exceeded the machine's memory or its own memory limit."""


class StepTimedOut(StepError):
    """A step that exceeded its time limit and was killed."""


class DiskFull(StepError):
    """A step that could not write its output because the disk is full."""


class InternalError(StepError):
    """An unexpected error, which is a fault of edgekit.

    Attributes:
        log: The file with the traceback; empty where none could be written.
    """

    def __init__(self, message: str, *, step: str = "", stderr_tail: str = "", log: str = "") -> None:
        super().__init__(message, step=step, stderr_tail=stderr_tail)
        self.log = log


# A KeyboardInterrupt and no EdgekitError, so that `except Exception` does not swallow it.
class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM."""

    exit_code: ClassVar[int] = 130


def unknown_name(kind: str, name: str, known_names: list[str] | tuple[str, ...]) -> InputError:
    """Return the error for a name that does not exist.

    The message lists all known names. It suggests no similar one: a misspelt name is never corrected.

    Args:
        kind: What the name stands for, for example `target`.
        name: The unknown name.
        known_names: All names that are allowed.

    Returns:
        The error, to be raised by the caller.
    """
    listed = ", ".join(sorted(known_names)) or "none"
    return InputError(f"unknown {kind} '{name}'; known: {listed}")


def from_dict(data: dict[str, Any]) -> EdgekitError:
    """Rebuild an error from the result of `EdgekitError.to_dict`.

    Args:
        data: The class name under `type`, the message and the other fields.

    Returns:
        The error; `StepFailed` with the same message where the type is unknown.
    """
    fields = {key: str(data[key]) for key in ("step", "stderr_tail") if key in data}
    message = str(data.get("message", ""))
    for cls in (InputError, MissingDependency):
        if data.get("type") == cls.__name__:
            return cls(message, parameters=tuple(map(str, data.get("parameters", ()))))
    if data.get("type") == StepCrashed.__name__:
        return StepCrashed(message, **fields, signal=str(data.get("signal", "")))
    for step_cls in (StepOutOfMemory, StepTimedOut, DiskFull, StepDenied, StepFailed):
        if data.get("type") == step_cls.__name__:
            return step_cls(message, **fields)
    return StepFailed(message)
