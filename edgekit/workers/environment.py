"""What a worker process is given: variables, cores, memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TELEMETRY_OFF = {"ORT_DISABLE_TELEMETRY": "1"}
"""Nothing of a user's model is told to a library's makers, and no thread that does so runs beside what is measured."""


@dataclass(frozen=True)
class Environment:
    """Workers of equal environments are interchangeable, and are reused within a run.

    `variables` are set on top of the parent's. `cpus` pins the process; `memory_limit_bytes` bounds its private
    writable memory (RLIMIT_DATA: unlike RLIMIT_AS it leaves mapped libraries and address space reservations alone).
    """

    variables: tuple[tuple[str, str], ...] = ()
    cpus: tuple[int, ...] | None = None
    memory_limit_bytes: int | None = None

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        """With these variables and no limits."""
        return cls(tuple(sorted(variables.items())))

    @property
    def limits(self) -> dict[str, Any]:
        """What the child limits itself to, as JSON has it."""
        return {"cpus": self.cpus, "memory_limit_bytes": self.memory_limit_bytes}

    def child_variables(self) -> dict[str, str]:
        """The whole environment of the child."""
        own = {
            **TELEMETRY_OFF,
            "PYTHONDONTWRITEBYTECODE": "1",  # no .pyc is left in a model's folder
            "PYTHONFAULTHANDLER": "1",  # a crash of native code leaves a Python traceback on stderr
            "PYTHONHASHSEED": "0",  # converters write graphs in the order of their sets
            "PYTHONUNBUFFERED": "1",
        }
        # Two workers on two cores, each with two threads of OpenMP that wait for one another: calibrating takes thirty
        # times as long as with one each. And what a converter writes does not depend on how many cores there are.
        return {"OMP_NUM_THREADS": "1", **os.environ, **own, **dict(self.variables)}
