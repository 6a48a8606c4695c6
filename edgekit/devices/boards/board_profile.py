"""Describes a board as a device profile: the facts that it shows itself, and those of the profile that it is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import DeviceProfile
from edgekit.config.loader import read_toml_values, validate
from edgekit.core.errors import InputError
from edgekit.devices.boards.machine import BoardCore, Machine

# The architecture of emulated cores, as Linux names it.
ARCHITECTURE = "aarch64"
# QEMU's core of each part number, from /proc/cpuinfo. Of other parts, the core whose instruction set is nearest.
_EMULATED_AS = {0xD04: "cortex-a35", 0xD03: "cortex-a53", 0xD07: "cortex-a57", 0xD08: "cortex-a72", 0xD0B: "cortex-a76"}
_NEAREST_V8, _NEAREST_V82 = "cortex-a72", "cortex-a76"
# What QEMU's cores execute (Linux, Documentation/arch/arm64/elf_hwcaps.rst): Armv8.0, and in addition the Cortex-A76.
_V8_FEATURES = frozenset(("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid"))
_V82_FEATURES = frozenset(("atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp"))
# Features in the words of device profiles.
_FEATURE_WORDS = {"asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "crc32": "crc32", "i8mm": "i8mm"}
# The tables and keys that hold for other measurements than the board's own.
_NOT_KEPT = ("cost", "kernels", "published")


def profile_document(name: str, machine: Machine, base: Path | None, date: str) -> dict[str, Any]:
    """Describe a board as the content of a device profile, without a cost model.

    Args:
        name: The board's name.
        machine: What the board shows.
        base: The profile that the board's configuration names, for what the board does not show; None if it names none.
        date: The date for the sources of the facts, as YYYY-MM-DD.

    Returns:
        The content as TOML values.

    Raises:
        InputError: The emulated core cannot stand for the board, or facts are missing.
    """
    if machine.architecture != ARCHITECTURE:
        raise InputError(
            f"{name} has the architecture {machine.architecture}, and emulated cores are {ARCHITECTURE}; its latencies"
            " can be measured, but not predicted"
        )
    clusters = _clusters(machine.cores)
    document = _new_document(name, machine, clusters) if base is None else _from_base(name, base, clusters)
    provenance = dict(document.pop("provenance", {}))
    source = f"read from {name} on {date}"

    def put(table: dict[str, Any], prefix: str, values: Mapping[str, Any], origin: str) -> None:
        for key, value in values.items():
            if value not in (None, "", [], ()):
                table[key] = value
                provenance[f"{prefix}{key}"] = f"{source}: {origin}"

    if machine.model:
        put(document, "", {"title": printable(machine.model)}, "/proc/device-tree/model")
    put(document["memory"], "memory.", _ram(machine), "MemTotal of /proc/meminfo")
    for index, cluster in enumerate(clusters[: len(document["cores"])]):
        table, prefix = document["cores"][index], f"cores.{index}."
        put(table, prefix, {"name": printable(cluster[0].name), "count": len(cluster)}, "/proc/cpuinfo")
        put(table, prefix, _clock(cluster[0]), "cpufreq/cpuinfo_max_freq")
        put(table, prefix, _cache_sizes(cluster[0]), "the kernel's description of caches")
        words = [word for feature, word in _FEATURE_WORDS.items() if feature in cluster[0].features]
        put(table, prefix, {"features": words}, "/proc/cpuinfo")
    if clusters and clusters[0][0].part is not None:
        put(document["emulation"], "emulation.", _identity(clusters[0][0]), "/proc/cpuinfo")
        put(document["emulation"], "emulation.", _cache_ways(clusters[0][0]), "the kernel's description of caches")
    document["provenance"] = provenance
    run = document.get("run", {})
    if clusters and run.get("threads", 1) > len(clusters[0]):
        document["run"] = {**run, "threads": len(clusters[0])}
    return document


def printable(text: str) -> str:
    """Return what a board says of itself without control characters and lone surrogates, which no file can hold."""
    return "".join(character if character.isprintable() else "?" for character in text)


def read_document(document: Mapping[str, Any], name: str) -> DeviceProfile:
    """Validate the content of a profile.

    Args:
        document: The content as TOML values.
        name: The name of the board, for errors.

    Returns:
        The profile.

    Raises:
        InputError: A fact is missing or not allowed.
    """
    return validate(dict(document), DeviceProfile, f"the description of {name}")


def _clusters(cores: Sequence[BoardCore]) -> list[list[BoardCore]]:
    """Return the cores by kind, the fastest first: benchmarks run on the first cluster."""
    clusters: dict[tuple[Any, ...], list[BoardCore]] = {}
    for core in sorted(cores, key=lambda core: core.speed, reverse=True):
        clusters.setdefault((core.name, core.speed), []).append(core)
    return list(clusters.values())


def _from_base(name: str, base: Path, clusters: Sequence[Sequence[BoardCore]]) -> dict[str, Any]:
    document = {key: value for key, value in read_toml_values(base, "device profile").items() if key not in _NOT_KEPT}
    if "emulation" not in document:
        raise InputError(f"{base}: this profile cannot be emulated: it has no [emulation] table")
    emulation = dict(document["emulation"])
    emulation.pop("published_as", None)
    part = clusters[0][0].part if clusters else None
    if part is not None and part != emulation.get("part"):
        raise InputError(
            f"{base} describes another core than {name} has: part {emulation.get('part', 0):#x}, not {part:#x}; name"
            f" another profile with: edgekit devices add {name} --profile NAME --replace"
        )
    provenance = document.get("provenance", {})
    kept = {key: value for key, value in provenance.items() if key.partition(".")[0] not in _NOT_KEPT}
    kept.pop("emulation.published_as", None)
    cores = [dict(core) for core in document["cores"]]
    return {**document, "cores": cores, "memory": dict(document["memory"]), "emulation": emulation, "provenance": kept}


def _new_document(name: str, machine: Machine, clusters: Sequence[Sequence[BoardCore]]) -> dict[str, Any]:
    fastest = clusters[0][0] if clusters else None
    sizes = {} if fastest is None else {**_clock(fastest), **_cache_sizes(fastest)}
    missing = [what for what, known in (
        ("the part number of its cores", fastest is not None and fastest.part is not None),
        ("its clock rate", "clock_mhz" in sizes),
        ("the sizes of its caches", {"l1d_kib", "l2_kib"} <= set(sizes)),
        ("the size of its memory", machine.memory_bytes is not None),
    ) if not known]  # fmt: skip
    if missing or fastest is None:
        raise InputError(
            f"{name} does not show {' and '.join(missing)}; name a profile that describes it with: edgekit devices add"
            f" {name} --profile NAME --replace"
        )
    v82 = "asimddp" in fastest.features
    nearest = _NEAREST_V82 if v82 else _NEAREST_V8
    return {
        "title": printable(machine.model) or name,
        "kind": "board",
        "soc": printable(machine.model) or "unknown",
        "isa": "armv8.2-a" if v82 else "armv8-a",
        "cores": [
            {"name": printable(cluster[0].name), "count": len(cluster), **_clock(cluster[0])} for cluster in clusters
        ],
        "memory": _ram(machine),
        "emulation": {"cpu": _EMULATED_AS.get(fastest.part or 0, nearest)},
    }


def _ram(machine: Machine) -> dict[str, str]:
    return {} if machine.memory_bytes is None else {"ram": f"{machine.memory_bytes >> 20} MiB"}


def _clock(core: BoardCore) -> dict[str, int]:
    return {} if core.max_khz is None else {"clock_mhz": core.max_khz // 1000}


def _cache_sizes(core: BoardCore) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for cache in core.caches:
        if cache.level == 1 and cache.kind in ("Data", "Instruction"):
            sizes["l1d_kib" if cache.kind == "Data" else "l1i_kib"] = cache.kib
        elif cache.level == 2:
            sizes |= {"l2_kib": cache.kib, "l2_scope": "cluster" if cache.shared else "core"}
        elif cache.level == 3:
            sizes["l3_kib"] = cache.kib
    return sizes


def _cache_ways(core: BoardCore) -> dict[str, int | None]:
    keys = {(1, "Data"): "l1d_ways", (2, "Unified"): "l2_ways", (3, "Unified"): "l3_ways"}
    return {keys[found]: cache.ways for cache in core.caches if (found := (cache.level, cache.kind)) in keys}


def _identity(core: BoardCore) -> dict[str, Any]:
    """Return how runtimes recognize the core; features that QEMU's core does not execute are left out."""
    allowed = _V8_FEATURES | _V82_FEATURES if "asimddp" in core.features else _V8_FEATURES
    features = [feature for feature in core.features if feature in allowed]
    return {
        "implementer": core.implementer,
        "part": core.part,
        "variant": core.variant,
        "revision": core.revision,
        "features": features,
    }


def not_emulated(machine: Machine) -> tuple[str, ...]:
    """Return the instructions of a board's fastest cores that runtimes use and that the emulated core lacks.

    Args:
        machine: The board.

    Returns:
        Features in the words of /proc/cpuinfo; a runtime runs other kernels on the board than the counted ones.
    """
    clusters = _clusters(machine.cores)
    features = clusters[0][0].features if clusters else ()
    return tuple(feature for feature in ("i8mm", "sve", "sve2", "sme", "bf16") if feature in features)


def to_toml(document: Mapping[str, Any]) -> str:
    """Write the content of a profile as TOML.

    Args:
        document: The content as TOML values.

    Returns:
        The text, with its tables after the keys that belong to none.
    """
    return "\n".join(_lines(document, ())).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    nested = {key: value for key, value in table.items() if _is_table(value)}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in nested)
    for key, value in nested.items():
        inner = (*path, _key(key))
        for item in value if isinstance(value, list) else (value,):
            yield ""
            yield f"[[{'.'.join(inner)}]]" if isinstance(value, list) else f"[{'.'.join(inner)}]"
            yield from _lines(item, inner)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    # JSON's strings, numbers and lists are also TOML's, but for one control character that JSON does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
