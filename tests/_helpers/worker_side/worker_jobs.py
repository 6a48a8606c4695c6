"""Functions that the worker tests send to workers."""

from __future__ import annotations

import ctypes
import errno
import importlib
import logging
import os
import signal
import sys
import time
import warnings
from typing import Any

from edgekit.core.errors import InputError
from edgekit.core.events import Listener, ProgressEvent
from edgekit.workers.job import worker_job


@worker_job
def double(number: int, emit: Listener) -> int:
    """Return twice the number."""
    emit(ProgressEvent("double", 1, 1))
    return 2 * number


def add(a: int, b: int, *, emit: Listener) -> int:
    for step in range(3):
        emit(ProgressEvent("add", step + 1, 3))
    return a + b


def log(messages: list[str], *, emit: Listener) -> None:
    for message in messages:
        logging.getLogger("edgekit.stages.example").info(message)
    logging.getLogger("some.framework").warning("not for the log of edgekit")
    logging.getLogger("edgekit.stages.example").debug("a detail")


def warn(*, emit: Listener) -> str:
    warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    return "warned"


def import_modules(names: list[str], *, emit: Listener) -> list[str]:
    return [importlib.import_module(name).__name__ for name in names]


def pid(*, emit: Listener) -> int:
    return os.getpid()


def variable(name: str, *, emit: Listener) -> str | None:
    return os.environ.get(name)


def cpus(*, emit: Listener) -> list[int]:
    return sorted(os.sched_getaffinity(0))


def refuse(*, emit: Listener) -> None:
    raise InputError("x.toml: a: unknown key")


def fail(*, emit: Listener) -> None:
    raise ValueError("the converter said no\nand went on for lines")


def segfault(*, emit: Listener) -> None:
    print("about to read address zero", file=sys.stderr, flush=True)
    ctypes.string_at(0)


def killed(*, emit: Listener) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(*, emit: Listener) -> None:
    os._exit(7)


def chat(*, emit: Listener) -> None:
    print("this goes to stdout, which is nobody's")


def hang(*, emit: Listener) -> None:
    time.sleep(3600)


def pid_when_heard(*, emit: Listener) -> int:
    emit(ProgressEvent("pid", 1, 1))
    return os.getpid()


def hang_when_heard(*, emit: Listener) -> None:
    emit(ProgressEvent("hang", 1, 1))
    time.sleep(3600)


def hog(*, emit: Listener) -> int:
    return len(bytearray(2 * 1024**3))


def abort_for_memory(*, emit: Listener) -> None:
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
    os.abort()


def full_disk(*, emit: Listener) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def missing(*, emit: Listener) -> Any:
    import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401


def leave_a_temporary_file(*, emit):
    """As TensorFlow does for each function that it traces."""
    import tempfile

    with tempfile.NamedTemporaryFile(delete=False) as file:
        return file.name
