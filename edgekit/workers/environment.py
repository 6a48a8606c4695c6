"""The environment of a worker process: variables, cores and memory limit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# ONNX Runtime's telemetry would report the use of a user's model, and its thread would disturb measurements.
TELEMETRY_OFF = {"ORT_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Environment:
    """The environment of a worker process. Workers of equal environments are interchangeable and reused within a run.

    Attributes:
        variables: Environment variables as sorted (name, value) pairs, set on top of the parent's.
        cpus: The core numbers that the process is pinned to, or None for all cores.
        memory_limit_bytes: The bound on private writable memory, or None. It is set as RLIMIT_DATA: unlike RLIMIT_AS
            this does not count mapped libraries and reservations of address space.
    """

    variables: tuple[tuple[str, str], ...] = ()
    cpus: tuple[int, ...] | None = None
    memory_limit_bytes: int | None = None

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        """Create an environment with these variables and no limits."""
        return cls(tuple(sorted(variables.items())))

    @property
    def limits(self) -> dict[str, Any]:
        """The arguments of `_bootstrap.apply_limits`, as JSON values."""
        return {"cpus": self.cpus, "memory_limit_bytes": self.memory_limit_bytes}

    def child_variables(self) -> dict[str, str]:
        """Return all environment variables of the child: the parent's, edgekit's, and `variables`, the last one wins.

        Returns:
            Variable name -> value.
        """
        fixed = {
            **TELEMETRY_OFF,
            "PYTHONDONTWRITEBYTECODE": "1",  # leave no .pyc files in a model's folder
            "PYTHONFAULTHANDLER": "1",  # write a Python traceback to stderr when native code crashes
            "PYTHONHASHSEED": "0",  # converters write graphs in the iteration order of their sets
            "PYTHONUNBUFFERED": "1",  # the last lines before a crash must reach stderr
        }
        # Two workers with two OpenMP threads each on two cores spend their time waiting for one another: calibration
        # takes 30 times as long. One thread also makes a converter's output independent of the number of cores.
        return {"OMP_NUM_THREADS": "1", **os.environ, **fixed, **dict(self.variables)}
