"""The environment of a worker process: variables, cores, memory limit and confinement."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.errors import MissingDependency
from edgekit.workers import confinement

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
        confined: Whether the kernel confines the process: it writes into its own folders only, and has no network.
        writable: The folders that a confined process may write into besides its own, absolute.
        programs: The files that a confined process may execute, absolute; they are confined in the same way.
    """

    variables: tuple[tuple[str, str], ...] = ()
    cpus: tuple[int, ...] | None = None
    memory_limit_bytes: int | None = None
    confined: bool = True
    writable: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @classmethod
    def of(cls, variables: Mapping[str, str], *, confined: bool = True) -> Environment:
        """Create an environment with these variables and no limits.

        Args:
            variables: Name -> value.
            confined: Whether its processes are confined; code that the user named has the rights of the user instead.
        """
        return cls(tuple(sorted(variables.items())), confined=confined)

    def limits(self, own_folders: Iterable[str] = ()) -> dict[str, Any]:
        """Return the arguments of `_bootstrap.start`, as JSON values.

        Args:
            own_folders: The folders that belong to the process.

        Raises:
            InputError: The variable EDGEKIT_CONFINEMENT has an unknown value.
            MissingDependency: It requires a confinement that this machine does not have.
        """
        confine = None
        if self.confined and _can_confine():
            confine = {"writable": [*self.writable, *own_folders], "programs": list(self.programs)}
        return {"cpus": self.cpus, "memory_limit_bytes": self.memory_limit_bytes, "confine": confine}

    @property
    def described(self) -> str:
        """The environment for the log: the names of its variables, not their values, its cores and memory limit."""
        parts = [name for name, _ in self.variables]
        if self.cpus is not None:
            parts.append(f"cores {', '.join(map(str, self.cpus))}")
        if self.memory_limit_bytes is not None:
            parts.append(f"memory limit {self.memory_limit_bytes} bytes")
        return f" with {', '.join(parts)}" if parts else ""

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
            # Empty is unset. `error` would turn the warnings of frameworks at their import into failures of every step.
            "PYTHONWARNINGS": "",
        }
        # Two workers with two OpenMP threads each on two cores spend their time waiting for one another: calibration
        # takes 30 times as long. One thread also makes a converter's output independent of the number of cores.
        return {"OMP_NUM_THREADS": "1", **os.environ, **fixed, **dict(self.variables)}


def _can_confine() -> bool:
    """Return whether processes are to be confined, by the variable EDGEKIT_CONFINEMENT and by what the machine has."""
    mode = confinement.mode()
    if mode == "off":
        return False
    reason = confinement.unavailable_reason()
    if reason is not None and mode == "required":
        raise MissingDependency(f"{confinement.VARIABLE} is required, but workers cannot be confined here: {reason}")
    return reason is None
