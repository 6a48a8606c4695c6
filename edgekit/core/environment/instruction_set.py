"""The instruction set of this processor, as far as results of integer kernels depend on it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_X86 = ("x86_64", "amd64", "i686", "i386", "x86")

# Names by the flags of /proc/cpuinfo, the widest first; the first one that the processor has is its name.
_X86_LEVELS = (
    ("amx_int8", "AMX"),
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx_vnni", "AVX-VNNI"),
    ("avx512bw", "AVX-512"),
    ("avx2", "AVX2"),
    ("avx", "AVX"),
)
_ARM_LEVELS = (("i8mm", "I8MM"), ("asimddp", "dot product"), ("asimd", "NEON"))
# Instructions that add four products of 8 bits in 32 bits; those before them add two in 16 bits, which saturate.
_EXACT = ("amx_int8", "avx512_vnni", "avx_vnni")


@functools.cache
def _flags() -> frozenset[str]:
    """Return the flags of the first core; none where the system has no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(found, []))


def instruction_set(machine: str | None = None, flags: frozenset[str] | None = None) -> str:
    """Return the name of the instruction set that integer kernels use.

    Args:
        machine: The architecture, as `platform.machine()` names it; None for this machine's.
        flags: The processor's flags, as /proc/cpuinfo lists them; None for this machine's.

    Returns:
        A name such as `x86_64 AVX2`; the architecture alone where the flags are unknown.
    """
    machine, flags = machine or platform.machine(), _flags() if flags is None else flags
    levels = _X86_LEVELS if machine.lower() in _X86 else _ARM_LEVELS
    level = next((name for flag, name in levels if flag in flags), "")
    return f"{machine} {level}".strip()


def saturates(machine: str | None = None, flags: frozenset[str] | None = None) -> bool:
    """Return whether kernels may add pairs of uint8 x int8 products in 16 bits, where they saturate.

    Args:
        machine: The architecture, as `platform.machine()` names it; None for this machine's.
        flags: The processor's flags, as /proc/cpuinfo lists them; None for this machine's.

    Returns:
        True on x86 processors without VNNI, and on those whose flags are unknown.
    """
    machine, flags = machine or platform.machine(), _flags() if flags is None else flags
    return machine.lower() in _X86 and not flags.intersection(_EXACT)
