"""`device_profiles/*.toml`: facts about a device, each with its provenance, and what is asked of models there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekit.config.door import STRICT, read_toml
from edgekit.config.types import Budgets, Positive, PositiveInt, Precision, Size


@dataclass(frozen=True)
class Core:
    """One cluster of equal cores. Sizes of caches in KiB; `macs_per_cycle` is the peak of one core, by arithmetic."""

    name: str
    count: PositiveInt
    clock_mhz: PositiveInt
    l1i_kib: PositiveInt | None = None
    l1d_kib: PositiveInt | None = None
    l2_kib: PositiveInt | None = None
    l2_scope: Literal["core", "cluster"] | None = None
    l3_kib: PositiveInt | None = None
    features: tuple[str, ...] = ()
    macs_per_cycle: dict[Literal["float32", "float16", "int8"], Positive] = field(default_factory=dict)

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MemorySpec:
    """RAM and, on microcontrollers, flash, in bytes; the peak bandwidth in 1e9 bytes a second."""

    ram: Size
    bandwidth_gb_per_s: Positive | None = None
    flash: Size | None = None
    storage: str | None = None

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RunSpec:
    """How a bench under this profile runs."""

    threads: PositiveInt = 1
    memory_limit: Size | None = None

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DeviceProfile:
    """One device. A fact that is not known is absent; `provenance` says where each of the others comes from."""

    title: str
    kind: Literal["phone", "board", "microcontroller"]
    soc: str
    isa: str
    cores: tuple[Core, ...]
    memory: MemorySpec
    run: RunSpec = field(default_factory=RunSpec)
    budgets: Budgets = field(default_factory=Budgets)
    targets: tuple[str, ...] | None = None
    precisions: tuple[Precision, ...] | None = None
    provenance: dict[str, str] = field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.cores:
            raise ValueError("cores: there must be at least one cluster of cores")
        if self.run.threads > self.cores[0].count:
            raise ValueError(f"run.threads must not exceed the {self.cores[0].count} cores of the first cluster")

    def refuses(self, target: str, precision: str) -> str | None:
        """Why this device does not run such an artifact, or None."""
        if self.targets is not None and target not in self.targets:
            return f"runs {', '.join(self.targets)} only"
        if self.precisions is not None and precision not in self.precisions:
            return f"runs {', '.join(self.precisions)} only"
        return None


def load_profile(path: Path) -> DeviceProfile:
    """The profile. Raises InputError with file and key."""
    return read_toml(path, DeviceProfile, "device profile")
