"""The `host` tier: this machine, constrained as far as it can be. Exact for this host only."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command that finds nothing to do needs this host's name, and no profile
    from edgekit.config.device_profile import DeviceProfile


@dataclass(frozen=True)
class HostPlan:
    """Cores and threads that a bench gets. `note` says what the profile wanted and this host does not have."""

    cpus: tuple[int, ...] | None
    threads: int
    memory_limit_bytes: int | None
    note: str = ""


def available_cpus() -> tuple[int, ...]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def plan(profile: DeviceProfile | None, threads: int | None) -> HostPlan:
    """Threads as asked for, else as the profile says, but no more than there are cores: more would spin, not compute.

    One core is taken for each thread, from the end: interrupts gather on the first ones. The memory limit is the
    profile's, except for microcontrollers, whose memory would not hold this host's runtime.
    """
    cpus = available_cpus()
    wanted = threads or (profile.run.threads if profile else 1)
    count = min(wanted, len(cpus))
    note = f"{wanted} threads were asked for; this host has {_cores(len(cpus))}" if count < wanted else ""
    limit = profile.run.memory_limit if profile is not None and profile.kind != "microcontroller" else None
    return HostPlan(cpus[-count:] if hasattr(os, "sched_setaffinity") else None, count, limit, note)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def available_memory_bytes() -> int:
    """What can be taken without pushing anything out: the system's figure, or this control group's where it is less."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        found.append(1024 * int(line.split()[1]))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # not limited ("max"), or another kind of control group
            bounds = [int(Path("/sys/fs/cgroup", name).read_text()) for name in (limit, used)]
            found.append(max(0, bounds[0] - bounds[1]))
    return min(found, default=2**31)


def description() -> str:
    """This host in a few words: the CPU's name and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{name or platform.machine()}, {_cores(len(available_cpus()))}"
