"""`device_profiles/*.toml`: facts about a device, each with its provenance, and what is asked of models there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekit.config.loader import STRICT, read_toml
from edgekit.config.types import Budgets, NotNegative, NotNegativeInt, Positive, PositiveInt, PrecisionName, Size


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
    """RAM and, on microcontrollers, flash, in bytes; the peak bandwidth in 1e9 bytes a second. `system` is what of the
    RAM the system or the firmware around the model keeps."""

    ram: Size
    bandwidth_gb_per_s: Positive | None = None
    flash: Size | None = None
    storage: str | None = None
    system: Size | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.system is not None and self.system >= self.ram:
            raise ValueError("system: it must be less than the RAM")


@dataclass(frozen=True)
class RunSpec:
    """How a bench under this profile runs."""

    threads: PositiveInt = 1
    memory_limit: Size | None = None

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class EmulationSpec:
    """How QEMU stands in for a core of the first cluster. The sizes of its caches are the core's.

    `cpu` is QEMU's name of the core, or of the nearest that it has. `implementer`, `part`, `variant`, `revision` and
    `features` go into the /proc/cpuinfo that the guest sees: the runtimes choose their kernels by them. `published_as`
    is the device's name in `device_profiles/measured/published_latency.csv`.
    """

    cpu: str
    part: PositiveInt
    features: tuple[str, ...]
    implementer: PositiveInt = 0x41
    variant: NotNegativeInt = 0
    revision: NotNegativeInt = 0
    l1d_ways: PositiveInt = 4
    l2_ways: PositiveInt = 16
    l3_ways: PositiveInt = 16
    published_as: str | None = None

    __pydantic_config__ = STRICT

    def cpuinfo(self, cores: int) -> str:
        """The text of /proc/cpuinfo, as Linux arch/arm64/kernel/cpuinfo.c writes it."""
        lines = (
            "BogoMIPS\t: 108.00",
            f"Features\t: {' '.join(self.features)}",
            f"CPU implementer\t: {self.implementer:#04x}",
            "CPU architecture: 8",
            f"CPU variant\t: {self.variant:#x}",
            f"CPU part\t: {self.part:#05x}",
            f"CPU revision\t: {self.revision}",
        )
        block = "\n".join(lines)
        return "".join(f"processor\t: {index}\n{block}\n\n" for index in range(cores))


@dataclass(frozen=True)
class ThreadCost:
    """What a line of 64 bytes from memory costs with so many threads at work, in ns: their share of the bandwidth, and
    waiting for one another. `mean_error` and `max_error` are relative, of the rows of that many threads, each predicted
    from the others."""

    count: PositiveInt
    line_ns: NotNegative
    rows: PositiveInt
    mean_error: NotNegative
    max_error: NotNegative

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class CostSpec:
    """Coefficients of the emulated tier's cost model, fitted by `edgekit devices fit`, and with what."""

    cycles_per_instruction: Positive
    cycles_per_l1_miss: NotNegative
    threads: tuple[ThreadCost, ...]
    fitted_with: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PublishedSpec:
    """Which rows of `device_profiles/measured/mlperf_tiny.csv` are a microcontroller's own: its board, the round, and
    the runtime that called the kernels."""

    board: str
    round: str
    runtime: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class KernelSpec:
    """What int8 kernels take of a microcontroller's core, fitted by `edgekit devices fit`, and with what.

    `cycles_per_output` is for each element that an operator with weights writes: it is scaled back to int8.
    `mean_error` and `max_error` are relative, each row predicted from the others.
    """

    cycles_per_mac: Positive
    cycles_per_output: NotNegative
    rows: PositiveInt
    mean_error: NotNegative
    max_error: NotNegative
    fitted_with: str

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
    precisions: tuple[PrecisionName, ...] | None = None
    emulation: EmulationSpec | None = None
    cost: CostSpec | None = None
    published: PublishedSpec | None = None
    kernels: KernelSpec | None = None
    provenance: dict[str, str] = field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.cores:
            raise ValueError("cores: there must be at least one cluster of cores")
        if self.run.threads > self.cores[0].count:
            raise ValueError(f"run.threads must not exceed the {self.cores[0].count} cores of the first cluster")

    @property
    def model_flash(self) -> int | None:
        """Bytes of flash from which models and the code that runs them are read, on a microcontroller."""
        return self.memory.flash if self.kind == "microcontroller" else None

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
