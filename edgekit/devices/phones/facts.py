"""What a phone is and how it is doing, from its properties, /proc, /sys and Android's own services."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.core.errors import StepFailed
from edgekit.devices.boards._agent import cpu_parts
from edgekit.devices.boards.machine import Machine, parse_machine

# android.os.PowerManager, THERMAL_STATUS_NONE to THERMAL_STATUS_SHUTDOWN.
_THERMAL_STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_CPU_FILE = re.compile(r"cpu(\d+)/(?:cpufreq/)?(\w+):(.+)")
_ZONE_FILE = re.compile(r"(thermal_zone\d+)/(type|temp):(.+)")
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=\d+, mName=([^,]+), mStatus=\d+\}")
_THERMAL_STATUS = re.compile(r"Thermal Status: (\d+)")
# BatteryManager.BATTERY_STATUS_CHARGING and BATTERY_STATUS_FULL.
_CHARGING = ("2", "5")
# Below this many percent many phones slow down by themselves.
_LOW_BATTERY = 15


@dataclass(frozen=True)
class PhoneFacts:
    """A phone.

    Attributes:
        machine: Its cores, memory, frequencies and temperatures.
        android: The version of Android; may be empty.
        api_level: The level of Android's programming interface; 0 if it is unknown.
        abis: The binary interfaces that it runs, such as `arm64-v8a`, the preferred one first.
        soc: The name of the chip; may be empty.
        battery_percent: The charge of the battery, or None.
        charging: Whether the battery is being charged or full; None if it is unknown.
        battery_saver: Whether the battery saver is on.
    """

    machine: Machine
    android: str
    api_level: int
    abis: tuple[str, ...]
    soc: str
    battery_percent: int | None
    charging: bool | None
    battery_saver: bool

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the phone's figures has to know beside the state of its cores."""
        notes = []
        if self.battery_saver:
            notes.append("the battery saver is on, which slows the phone")
        if self.battery_percent is not None and self.battery_percent <= _LOW_BATTERY and not self.charging:
            notes.append(f"the battery is at {self.battery_percent} %")
        return tuple(notes)


def parse_facts(found: Mapping[str, Sequence[str]], clock_skew_s: float = 0.0) -> PhoneFacts:
    """Decode what the script has read about a phone.

    Args:
        found: Section -> lines.
        clock_skew_s: How far the phone's clock is ahead of this host's, in seconds.

    Returns:
        The phone; what it does not show is missing.

    Raises:
        StepFailed: The sections are incomplete, as after a lost connection.
    """
    if "end" not in found or len(found["uname"]) < 2:
        raise StepFailed("the phone's description is incomplete")
    properties = dict(line.partition("=")[::2] for line in found["properties"])
    cpus, cores = _cpus(found)
    hello = {"machine": found["uname"][0], "python": (), "libc": (), "clock_skew_s": clock_skew_s}
    probe: dict[str, Any] = {
        "model": _join(properties, "ro.product.manufacturer", "ro.product.model"),
        "kernel": found["uname"][1],
        "cores": cores,
        "memory": {key: 1024 * value for key, value in _numbers(found["meminfo"]).items()},
        "disk_free_bytes": _free_bytes(found["disk"]),
        "state": {
            "cpus": cpus,
            "temperatures": _temperatures(found),
            "throttled": "",
            "load": _load(found["load"]),
            "thermal_status": _thermal_status(found["thermalservice"]),
        },
    }
    battery = dict(line.strip().partition(": ")[::2] for line in found["battery"])
    level, status = battery.get("level", ""), battery.get("status", "")
    api_level = properties.get("ro.build.version.sdk", "")
    return PhoneFacts(
        parse_machine(hello, probe),
        properties.get("ro.build.version.release", ""),
        int(api_level) if api_level.isdigit() else 0,
        tuple(filter(None, properties.get("ro.product.cpu.abilist", "").split(","))),
        _join(properties, "ro.soc.manufacturer", "ro.soc.model"),
        int(level) if level.isdigit() else None,
        status in _CHARGING if status else None,
        found["saver"][:1] == ["1"],
    )


def _join(properties: Mapping[str, str], *names: str) -> str:
    return " ".join(value for name in names if (value := properties.get(name, "").strip()))


def _numbers(lines: Sequence[str]) -> dict[str, int]:
    """Return the numbers of lines such as `MemTotal:  7654321 kB`."""
    pairs = (re.fullmatch(r"(\w+):\s*(\d+)\b.*", line) for line in lines)
    return {pair[1]: int(pair[2]) for pair in pairs if pair is not None}


def _cpus(found: Mapping[str, Sequence[str]]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return the state and the description of each core that is on, in the form of the agent of boards."""
    parts = cpu_parts("\n".join(found["cpuinfo"]))
    values: dict[int, dict[str, str]] = {cpu: {} for cpu in parts}
    for line in found["cpus"]:
        match = _CPU_FILE.fullmatch(line)
        # A core that was switched off to save power keeps some of its files.
        if match is not None and int(match[1]) in values:
            values[int(match[1])][match[2]] = match[3].strip()
    states = {
        str(cpu): {
            "khz": _integer(files.get("scaling_cur_freq")),
            "limit_khz": _integer(files.get("scaling_max_freq")),
            "governor": files.get("scaling_governor", ""),
        }
        for cpu, files in values.items()
    }
    cores = [
        {
            "cpu": cpu,
            "capacity": _integer(files.get("cpu_capacity")),
            "max_khz": _integer(files.get("cpuinfo_max_freq")),
            "implementer": parts[cpu].get("CPU implementer", ""),
            "part": parts[cpu].get("CPU part", ""),
            "name": parts[cpu].get("model name", ""),
        }
        for cpu, files in values.items()
    ]
    return states, cores


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def _temperatures(found: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return degrees Celsius by sensor; newer phones show them through the service only."""
    zones: dict[str, dict[str, str]] = {}
    for line in found["thermal_zones"]:
        match = _ZONE_FILE.fullmatch(line)
        if match is not None:
            zones.setdefault(match[1], {})[match[2]] = match[3].strip()
    degrees = {
        zone.get("type", name): milli / 1000
        for name, zone in zones.items()
        if (milli := _integer(zone.get("temp"))) is not None
    }
    for value, name in _TEMPERATURE.findall("\n".join(found["thermalservice"])):
        degrees[name] = float(value)
    # Sensors that are switched off report 0 or far less; a chip that works is warmer than its surroundings.
    return {name: value for name, value in degrees.items() if 0 < value < 150}


def _thermal_status(lines: Sequence[str]) -> str:
    match = _THERMAL_STATUS.search("\n".join(lines))
    if match is None:
        return ""
    return _THERMAL_STATUSES[min(int(match[1]), len(_THERMAL_STATUSES) - 1)]


def _load(lines: Sequence[str]) -> float | None:
    match = re.match(r"\d+(?:\.\d+)?", lines[0]) if lines else None
    return float(match[0]) if match is not None else None


def _free_bytes(lines: Sequence[str]) -> int:
    words = lines[0].split() if lines else []
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise StepFailed("the phone does not show how much storage is free")
    return int(words[0]) * int(words[1])
