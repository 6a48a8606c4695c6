"""The schema of `device_profiles/*.toml`: facts about a device with their provenance, and limits for its models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekit.config.loader import STRICT, read_toml
from edgekit.config.types import Budgets, NotNegative, NotNegativeInt, Positive, PositiveInt, PrecisionName, Size


@dataclass(frozen=True)
class Core:
    """A cluster of identical cores.

    Attributes:
        name: The name of the core, such as `Cortex-A72`.
        count: The number of cores.
        clock_mhz: The clock rate, in MHz.
        l1i_kib: The size of the level-1 instruction cache of one core, in KiB.
        l1d_kib: The size of the level-1 data cache of one core, in KiB.
        l2_kib: The size of the level-2 cache, in KiB.
        l2_scope: Whether each core or the whole cluster has a level-2 cache of that size.
        l3_kib: The size of the level-3 cache, in KiB.
        features: The extensions of the instruction set.
        macs_per_cycle: Data type -> the peak number of multiply-accumulates of one core in a cycle.
    """

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
    """The memory of a device.

    Attributes:
        ram: The size of the RAM, in bytes.
        bandwidth_gb_per_s: The peak bandwidth of the RAM, in 1e9 bytes/s.
        flash: The size of a microcontroller's flash, in bytes.
        storage: The kind of storage, in words.
        system: The part of the RAM that the operating system or the firmware occupies, in bytes.
    """

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
    """The settings of a benchmark under this profile.

    Attributes:
        threads: The number of threads.
        memory_limit: The memory limit of the process, in bytes.
    """

    threads: PositiveInt = 1
    memory_limit: Size | None = None

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class EmulationSpec:
    """The settings with which QEMU emulates a core of the first cluster. The cache sizes are those of the core.

    Runtimes select their kernels by /proc/cpuinfo, which is emulated too.

    Attributes:
        cpu: QEMU's name of the core, or of the nearest core that it supports.
        part: `CPU part` in /proc/cpuinfo.
        features: `Features` in /proc/cpuinfo.
        implementer: `CPU implementer` in /proc/cpuinfo; 0x41 is Arm.
        variant: `CPU variant` in /proc/cpuinfo.
        revision: `CPU revision` in /proc/cpuinfo.
        l1d_ways: The associativity of the level-1 data cache.
        l2_ways: The associativity of the level-2 cache.
        l3_ways: The associativity of the level-3 cache.
        published_as: The device's name in `device_profiles/measured/published_latency.csv`.
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
        """Return the text of /proc/cpuinfo, in the format of Linux' arch/arm64/kernel/cpuinfo.c.

        Args:
            cores: The number of cores to list.

        Returns:
            One block of lines for each core.
        """
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
class PropertyRange:
    """The range of a property of the networks that a cost model was fitted to.

    Attributes:
        low: The smallest value.
        high: The largest value.
    """

    low: NotNegative
    high: NotNegative

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MeasuredSpec:
    """The measurements on a board of the user's own that a cost model was fitted to.

    Attributes:
        board: The board's name in the user's configuration.
        machine: What the board is.
        date: The days of the first and the last measurement, as YYYY-MM-DD.
        versions: The versions of the runtime on the board and on the emulated core.
        noise: The largest range of a measurement's medians, relative to the latency.
        mean_error: The mean relative error of timings of families that were left out; None if none could be predicted.
        max_error: The largest such error.
    """

    board: str
    machine: str
    date: str
    versions: str
    noise: NotNegative
    mean_error: NotNegative | None = None
    max_error: NotNegative | None = None

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class CostSpec:
    """The coefficients of the emulated tier's cost model, which `edgekit devices fit` computes.

    The widths are relative: an interval reaches from latency / (1 + width) to latency * (1 + width).

    Attributes:
        cycles_per_instruction: The cycles of one instruction.
        cycles_per_l1_miss: The additional cycles of a level-1 cache miss.
        line_ns: The time to load a 64-byte cache line from memory, in ns, as far as threads load side by side.
        bus_line_ns: The time that such a line takes on the bus that the threads share, in ns.
        region_us: The time that a parallel region takes for each thread but the first, in us.
        rows: The number of measurements that the fit used.
        threads: The numbers of threads of these measurements.
        width_one_thread: The width of the interval at one thread, which covers nine of ten unseen networks.
        unseen_one_thread: The number of measurements of networks of unseen families, over all devices, that it is from.
        width_several_threads: The width of the interval at several threads.
        unseen_several_threads: The number of measurements that it is from.
        fitted_with: The data and versions that the fit used.
        runtime: The runtime that the measurements were made with.
        properties: Name -> the range of a property of the fitted networks.
        measured: The measurements on a board of the user's own; None for published timings.
    """

    cycles_per_instruction: Positive
    cycles_per_l1_miss: NotNegative
    line_ns: NotNegative
    bus_line_ns: NotNegative
    region_us: NotNegative
    rows: PositiveInt
    threads: tuple[PositiveInt, ...]
    width_one_thread: NotNegative
    unseen_one_thread: NotNegativeInt
    width_several_threads: NotNegative
    unseen_several_threads: NotNegativeInt
    fitted_with: str
    runtime: str = "litert"
    properties: dict[str, PropertyRange] = field(default_factory=dict)
    measured: MeasuredSpec | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.threads:
            raise ValueError("threads: there must be at least one number of threads")


@dataclass(frozen=True)
class PublishedSpec:
    """The rows of `mlperf_tiny.csv` or `kernel_latency.csv`, in `device_profiles/measured`, of this device.

    Attributes:
        board: The board's name in the file.
        runtime: The runtime that called the kernels.
        round: The round of MLPerf Tiny; None for the rows of `kernel_latency.csv`.
    """

    board: str
    runtime: str
    round: str | None = None

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class KernelSpec:
    """The cost of int8 kernels on a microcontroller, which `edgekit devices fit` computes.

    The errors are relative and cross-validated by leave-one-out.

    Attributes:
        cycles_per_mac: The cycles of one multiply-accumulate.
        cycles_per_output: The cycles to requantize one output element of an operator with weights.
        rows: The number of measurements that the fit used.
        mean_error: The mean error of these rows.
        max_error: The largest error of these rows.
        fitted_with: The data and versions that the fit used.
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
    """The profile of a device. Unknown facts are absent.

    Attributes:
        title: The device's name for people.
        kind: The kind of device.
        soc: The system on a chip.
        isa: The instruction set, such as `armv8-a`.
        cores: The clusters of cores; benchmarks run on the first.
        memory: The memory.
        run: The settings of a benchmark.
        budgets: The limits of artifacts on the device.
        targets: The targets that the device runs; None for all.
        precisions: The precisions that the device runs; None for all.
        emulation: The settings of the emulated core; None if it cannot be emulated.
        cost: The cost model of the emulated core.
        published: The published measurements of a microcontroller.
        kernels: The cost model of a microcontroller's kernels.
        provenance: Dotted key of a fact -> its source.
    """

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
        """The flash for models and code, in bytes; None if the device is not a microcontroller."""
        return self.memory.flash if self.kind == "microcontroller" else None

    def refusal(self, target: str, precision: str) -> str | None:
        """Return why the device does not run an artifact.

        Args:
            target: The artifact's target.
            precision: The artifact's precision.

        Returns:
            The reason, such as `runs tflite only`; None if the device runs the artifact.
        """
        if self.targets is not None and target not in self.targets:
            return f"runs {', '.join(self.targets)} only"
        if self.precisions is not None and precision not in self.precisions:
            return f"runs {', '.join(self.precisions)} only"
        return None


def load_profile(path: Path) -> DeviceProfile:
    """Read a device profile.

    Args:
        path: The TOML file.

    Returns:
        The validated profile.

    Raises:
        InputError: The file is missing, or a key or value is wrong; names the file and the key.
    """
    return read_toml(path, DeviceProfile, "device profile")
