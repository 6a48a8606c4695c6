"""The `host` tier: this machine with the threads and memory limit of a device profile."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a run with nothing to do needs this host's name only; the import of profiles costs time
    from edgekit.config.device_profile import DeviceProfile


@dataclass(frozen=True)
class HostPlan:
    """The resources of a bench on this host.

    Attributes:
        cpus: The cores that the process is pinned to; None where the system cannot pin.
        threads: The number of threads.
        memory_limit_bytes: The limit of the process's memory, or None.
        note: Where this host has fewer cores than requested: a sentence that says so.
    """

    cpus: tuple[int, ...] | None
    threads: int
    memory_limit_bytes: int | None
    note: str = ""


def available_cpus() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def plan(profile: DeviceProfile | None, threads: int | None) -> HostPlan:
    """Choose cores, threads and the memory limit of a bench.

    Args:
        profile: The device profile, or None for this host without one.
        threads: The requested number of threads; None for the profile's, or 1 without a profile.

    Returns:
        The plan. It has at most as many threads as there are cores, since additional threads would only spin.
    """
    cpus = available_cpus()
    requested = threads or (profile.run.threads if profile else 1)
    count = min(requested, len(cpus))
    note = f"{requested} threads were requested, but this host has {_cores(len(cpus))}" if count < requested else ""
    # A microcontroller's memory would not even hold this host's runtime.
    limit = profile.run.memory_limit if profile is not None and profile.kind != "microcontroller" else None
    # The last cores: the kernel handles most interrupts on the first ones.
    return HostPlan(cpus[-count:] if hasattr(os, "sched_setaffinity") else None, count, limit, note)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def description() -> str:
    """Return the CPU's name and the number of cores that this process may use, as one phrase."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{name or platform.machine()}, {_cores(len(available_cpus()))}"
