"""What a board is and how it is doing: cores, frequencies, temperatures, and whether it was throttled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.errors import StepFailed

# The part numbers of /proc/cpuinfo, from Linux' arch/arm64/include/asm/cputype.h and arch/arm/include/asm/cputype.h.
_PARTS = {
    ("0x41", "0xb76"): "ARM1176",
    ("0x41", "0xc05"): "Cortex-A5",
    ("0x41", "0xc07"): "Cortex-A7",
    ("0x41", "0xc08"): "Cortex-A8",
    ("0x41", "0xc09"): "Cortex-A9",
    ("0x41", "0xc0f"): "Cortex-A15",
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd48"): "Cortex-X2",
}
# A frequency or a limit that falls by more than this during a measurement is throttling: governors step by 10 % or so.
_DROP = 0.05
# The bits of the Raspberry Pi's get_throttled: what holds now, without what has happened since the boot.
_PI_FLAGS = {0: "its voltage is too low", 1: "its frequency is capped", 2: "it is throttled", 3: "it is too hot"}
# Other load than the measurement that makes its figures doubtful, in busy cores.
_BUSY = 0.5


@dataclass(frozen=True)
class BoardCache:
    """A cache of a core, as the kernel knows it.

    Attributes:
        level: Its level, from 1.
        kind: `Data`, `Instruction` or `Unified`.
        kib: Its size in KiB.
        ways: Its associativity, or None.
        shared: Whether other cores use it too.
    """

    level: int
    kind: str
    kib: int
    ways: int | None
    shared: bool


@dataclass(frozen=True)
class BoardCore:
    """A core that the user's processes may run on.

    Attributes:
        cpu: Its number.
        name: Its name, such as `Cortex-A72`; empty if unknown.
        capacity: Its speed relative to the fastest core's 1024, as the kernel knows it; None if it does not.
        max_khz: Its highest frequency in kHz, or None.
        implementer: `CPU implementer` in /proc/cpuinfo, or None.
        part: `CPU part`, or None.
        variant: `CPU variant`, or None.
        revision: `CPU revision`, or None.
        features: `Features`.
        caches: Its caches, where the kernel knows their sizes.
    """

    cpu: int
    name: str
    capacity: int | None
    max_khz: int | None
    implementer: int | None = None
    part: int | None = None
    variant: int | None = None
    revision: int | None = None
    features: tuple[str, ...] = ()
    caches: tuple[BoardCache, ...] = ()

    @property
    def speed(self) -> tuple[int, int]:
        """What cores are ordered by: the capacity, then the frequency."""
        return self.capacity or 0, self.max_khz or 0


@dataclass(frozen=True)
class BoardState:
    """How a board is doing at one moment.

    Attributes:
        khz: Core -> its frequency in kHz, where it is known.
        limit_khz: Core -> the highest frequency in kHz that it is allowed now, where it is known.
        governors: The frequency governors of the cores.
        temperatures: Sensor -> temperature in degrees Celsius.
        flags: The Raspberry Pi's flags of throttling; 0 on other boards.
        load: The average number of busy cores in the last minute, or None.
        thermal_status: Android's judgement of the temperature, from `none` to `shutdown`; empty on other boards.
    """

    khz: Mapping[int, int]
    limit_khz: Mapping[int, int]
    governors: tuple[str, ...]
    temperatures: Mapping[str, float]
    flags: int
    load: float | None
    thermal_status: str = ""

    @property
    def hottest(self) -> float | None:
        """The highest temperature in degrees Celsius, or None."""
        return max(self.temperatures.values(), default=None)


@dataclass(frozen=True)
class Machine:
    """A board.

    Attributes:
        model: The name of the board, as its firmware gives it; may be empty.
        architecture: The architecture, such as `aarch64`.
        kernel: The version of the kernel.
        python: The version of the Python that edgekit uses there.
        libc: The name and version of the C library, such as `glibc 2.36`.
        cores: The cores.
        memory_bytes: The size of the memory, or None.
        available_bytes: The memory that is free for programs, or None.
        disk_free_bytes: The space that is left for models.
        clock_skew_s: How far its clock is ahead of this host's, in seconds.
        state: How it is doing.
    """

    model: str
    architecture: str
    kernel: str
    python: tuple[int, ...]
    libc: str
    cores: tuple[BoardCore, ...]
    memory_bytes: int | None
    available_bytes: int | None
    disk_free_bytes: int
    clock_skew_s: float
    state: BoardState

    @property
    def description(self) -> str:
        """The board as a short phrase: its name, its cores and their highest frequencies."""
        kinds = Counter((core.name or self.architecture, core.max_khz) for core in self.cores)
        cores = " + ".join(
            f"{count}x {name}" + (f" {khz // 1000} MHz" if khz else "") for (name, khz), count in kinds.items()
        )
        return f"{self.model}, {cores}" if self.model else cores


def parse_state(data: Mapping[str, Any]) -> BoardState:
    """Decode the state that the agent has read.

    Args:
        data: Its JSON values.

    Returns:
        The state.

    Raises:
        StepFailed: The values are of another form.
    """
    try:
        cpus = {int(cpu): values for cpu, values in data["cpus"].items()}
        return BoardState(
            {cpu: int(values["khz"]) for cpu, values in cpus.items() if values["khz"] is not None},
            {cpu: int(values["limit_khz"]) for cpu, values in cpus.items() if values["limit_khz"] is not None},
            tuple(sorted({str(values["governor"]) for values in cpus.values() if values["governor"]})),
            {str(name): float(value) for name, value in data["temperatures"].items()},
            int(str(data["throttled"]) or "0", 16),
            None if data["load"] is None else float(data["load"]),
            str(data.get("thermal_status", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(error) from None


def parse_machine(hello: Mapping[str, Any], probe: Mapping[str, Any]) -> Machine:
    """Decode what the agent has read about a board.

    Args:
        hello: The reply to `hello`.
        probe: The reply to `probe`.

    Returns:
        The board.

    Raises:
        StepFailed: The values are of another form.
    """
    try:
        memory = probe["memory"]
        return Machine(
            model=str(probe["model"]),
            architecture=str(hello["machine"]),
            kernel=str(probe["kernel"]),
            python=tuple(map(int, hello["python"])),
            libc=" ".join(map(str, hello["libc"])).strip(),
            cores=tuple(map(_core, probe["cores"])),
            memory_bytes=_optional(memory.get("MemTotal")),
            available_bytes=_optional(memory.get("MemAvailable")),
            disk_free_bytes=int(probe["disk_free_bytes"]),
            clock_skew_s=float(hello["clock_skew_s"]),
            state=parse_state(probe["state"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(error) from None


def _core(data: Mapping[str, Any]) -> BoardCore:
    part = str(data["part"])
    name = _PARTS.get((str(data["implementer"]), part), "") or str(data["name"]) or (f"part {part}" if part else "")
    return BoardCore(
        int(data["cpu"]),
        name,
        _optional(data["capacity"]),
        _optional(data["max_khz"]),
        implementer=_code(data.get("implementer")),
        part=_code(data.get("part")),
        variant=_code(data.get("variant")),
        revision=_code(data.get("revision")),
        features=tuple(str(data.get("features") or "").split()),
        caches=tuple(cache for item in data.get("caches") or () if (cache := _cache(item)) is not None),
    )


def _code(text: Any) -> int | None:
    """Return a number that is written as in C, such as `0xd08`; None if there is none."""
    try:
        return int(str(text), 0)
    except ValueError:
        return None


def _cache(data: Mapping[str, Any]) -> BoardCache | None:
    """Return a cache; None if its size is not known, as where the firmware does not describe it."""
    match = re.fullmatch(r"(\d+)([KM])", str(data["size"]))
    if match is None or data["level"] is None:
        return None
    kib = int(match[1]) * (1024 if match[2] == "M" else 1)
    shared = "," in str(data["shared_by"]) or "-" in str(data["shared_by"])
    # The kernel writes 0 ways for an associativity that it does not know.
    return BoardCache(int(data["level"]), str(data["type"]), kib, _optional(data["ways"]) or None, shared)


def _optional(value: Any) -> int | None:
    return None if value is None else int(value)


def _malformed(error: Exception) -> StepFailed:
    return StepFailed(f"the board's description has a missing or mistyped value ({type(error).__name__}: {error})")


def fastest_cpus(cores: Sequence[BoardCore], threads: int) -> tuple[tuple[int, ...], str]:
    """Choose the cores of a measurement: the fastest ones.

    Args:
        cores: The board's cores.
        threads: The requested number of threads.

    Returns:
        The numbers of the cores, as many as threads or as there are, and a remark where they differ in speed or are
        too few.
    """
    # The last of equally fast cores: the kernel handles most interrupts on the first ones.
    ordered = sorted(cores, key=lambda core: (core.speed, core.cpu), reverse=True)
    chosen = ordered[:threads]
    note = ""
    if len(chosen) < threads:
        count = "1 core" if len(chosen) == 1 else f"{len(chosen)} cores"
        note = f"{threads} threads were requested, but the board has {count}"
    elif len({core.speed for core in chosen}) > 1:
        note = f"{threads} threads run on cores of different speed"
    return tuple(sorted(core.cpu for core in chosen)), note


def throttling(before: BoardState, after: BoardState, cpus: Sequence[int]) -> str:
    """Judge whether a board was slowed down during a measurement.

    Args:
        before: Its state before.
        after: Its state at the end.
        cpus: The cores of the measurement.

    Returns:
        What happened, as a clause; empty if nothing did, or if the board does not show it.
    """
    flags = before.flags | after.flags
    reasons = [text for bit, text in _PI_FLAGS.items() if flags >> bit & 1]
    statuses = [state.thermal_status for state in (after, before) if state.thermal_status not in ("", "none")]
    reasons += [f"Android's thermal status is {status}" for status in statuses[:1]]
    for what, old, new in (
        ("highest allowed frequency", before.limit_khz, after.limit_khz),
        ("frequency", _if_busy(before), after.khz),
    ):
        drops = [
            (old[cpu], new[cpu]) for cpu in cpus if cpu in old and cpu in new and new[cpu] < (1 - _DROP) * old[cpu]
        ]
        if drops and not reasons:
            reasons.append(f"its {what} fell from {drops[0][0] // 1000} to {drops[0][1] // 1000} MHz")
    return " and ".join(reasons)


def _if_busy(state: BoardState) -> Mapping[int, int]:
    """Return the frequencies if they do not depend on the load: an idle core is slow under most governors."""
    return state.khz if state.governors == ("performance",) else {}


def state_notes(before: BoardState, after: BoardState, cpus: Sequence[int]) -> tuple[str, ...]:
    """Return what a reader of a board's figures has to know.

    Args:
        before: The board's state before the measurement.
        after: Its state at the end.
        cpus: The cores of the measurement.

    Returns:
        Sentences without a full stop: temperature and frequency, throttling, other load, the governor.
    """
    notes = []
    if before.hottest is not None and after.hottest is not None:
        notes.append(f"{before.hottest:.0f} to {after.hottest:.0f} degrees Celsius")
    frequencies = sorted({after.khz[cpu] // 1000 for cpu in cpus if cpu in after.khz})
    if frequencies:
        notes.append(f"at {' and '.join(map(str, frequencies))} MHz after the measurement")
    verdict = throttling(before, after, cpus)
    known = bool(after.limit_khz or after.temperatures or after.flags or after.thermal_status)
    notes.append(f"THROTTLED: {verdict}" if verdict else "not throttled" if known else "throttling cannot be seen")
    if before.load is not None and before.load > _BUSY:
        notes.append(f"{before.load:.1f} cores were busy in the minute before it")
    if "powersave" in after.governors:
        notes.append("the governor powersave keeps it at a low frequency")
    return tuple(notes)
