"""Finds the functions of a runtime's thread pool in its arm64 library, so that the counting plugin can observe them.

XNNPACK runs each operator through functions `pthreadpool_parallelize_*`. With one thread such a function calls its task
in a loop, and with several it shares the tasks among the threads: each call is one parallel region.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Runtime -> the library, in its folder of wheels, that contains the thread pool.
_LIBRARIES = {"litert": "ai_edge_litert/libpywrap_litert_common.so"}
_PREFIX = "pthreadpool_parallelize_"
# The type SHT_SYMTAB of a section, and the layouts of ELF64, little-endian: System V ABI, gABI 4.1, chapter 4.
_SHT_SYMTAB = 2
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Loop:
    """A function of the thread pool.

    Attributes:
        name: Its name.
        start: Its address in the library.
        end: The address after its last instruction.
    """

    name: str
    start: int
    end: int

    @property
    def tiled(self) -> bool:
        """Whether the runtime chooses how many tasks the work is cut into, by the number of threads."""
        return "_tile_" in self.name


@dataclass(frozen=True)
class ThreadPool:
    """The thread pool of a runtime.

    Attributes:
        library: The file name of the library.
        loops: Its functions, sorted by address.
    """

    library: str
    loops: tuple[Loop, ...]

    def arguments(self) -> list[str]:
        """Return the counting plugin's arguments, one for each function."""
        return [f"loop={loop.start:x}:{loop.end:x}" for loop in self.loops]


def find(runtime: str, site: Path) -> ThreadPool | None:
    """Find the thread pool of a runtime.

    Args:
        runtime: The runtime's name.
        site: The folder of its wheels.

    Returns:
        The thread pool; None if the runtime has none that can be observed.
    """
    path = site / _LIBRARIES[runtime] if runtime in _LIBRARIES else None
    loops = _loops(path) if path is not None and path.is_file() else ()
    return ThreadPool(path.name, loops) if path is not None and loops else None


@cache
def _loops(path: Path) -> tuple[Loop, ...]:
    data = path.read_bytes()
    found = [Loop(name, start, start + size) for name, start, size in _symbols(data) if name.startswith(_PREFIX)]
    return tuple(sorted(found, key=lambda loop: loop.start))


def _symbols(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield (name, address, size) of each symbol of an ELF file; none if the symbols were removed."""
    (offset,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [_SECTION.unpack_from(data, offset + index * size) for index in range(count)]
    for section in sections:
        if section[1] != _SHT_SYMTAB:
            continue
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], _SYMBOL.size):
            name, _, _, _, start, length = _SYMBOL.unpack_from(data, at)
            yield data[names + name : data.index(b"\0", names + name)].decode(errors="replace"), start, length
