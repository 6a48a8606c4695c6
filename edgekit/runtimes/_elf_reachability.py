"""What a linker would keep of a library for some of its functions: all that they reach (ELF for x86-64, with symbols).

A function's references are in its instructions: calls, jumps, and addresses relative to its own. Those of a table, such
as that of virtual functions, are in the relocations.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.core.records.section_sizes import Piece

_POINTER = 8
_LONGEST_STRING = 4096
_STUB = 16  # bytes of an entry of the procedure linkage table
_RELATIVE, _ABSOLUTE = 8, 1  # R_X86_64_RELATIVE, R_X86_64_64; all others hold the address of a symbol
_PRINTABLE = frozenset((*range(32, 127), 9, 10))


class Library:
    """A shared library whose symbols were not stripped."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when it is none, or not one for x86-64."""
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        try:
            self._elf = ELFFile(BytesIO(read_bytes(path, "library")))
            self._read(path)
        except ELFError as error:
            raise InputError(f"{path}: no ELF file ({error})") from error

    def _read(self, path: Path) -> None:
        table = self._elf.get_section_by_name(".symtab")
        if self._elf["e_machine"] != "EM_X86_64" or table is None:
            raise InputError(f"{path}: no library for x86-64 with its symbols")
        self._sections = [
            (section["sh_addr"], section["sh_addr"] + section["sh_size"], section.name, section.data())
            for section in self._elf.iter_sections()
            if section["sh_flags"] & 2 and section["sh_type"] != "SHT_NOBITS"  # what is loaded from the file
        ]
        self.addresses: dict[str, int] = {}
        self._sizes: dict[int, tuple[int, bool]] = {}  # address -> bytes, and whether they are instructions
        for symbol in table.iter_symbols():
            kind = symbol["st_info"]["type"]
            if kind in ("STT_FUNC", "STT_OBJECT") and isinstance(symbol["st_shndx"], int) and symbol["st_size"]:
                self.addresses[symbol.name] = symbol["st_value"]
                self._sizes.setdefault(symbol["st_value"], (symbol["st_size"], kind == "STT_FUNC"))
        self._starts = sorted(self._sizes)
        self._relocated = dict(self._relocations())
        self._known: dict[int, tuple[int, ...]] = {}

    def _relocations(self) -> Iterator[tuple[int, int]]:
        """Where the loader writes an address of this library, and which."""
        symbols = self._elf.get_section_by_name(".dynsym")
        for name in (".rela.dyn", ".rela.plt"):
            section = self._elf.get_section_by_name(name)
            for item in () if section is None else section.iter_relocations():
                if item["r_info_type"] == _RELATIVE:
                    yield item["r_offset"], item["r_addend"]
                    continue
                symbol = symbols.get_symbol(item["r_info_sym"])
                if symbol["st_shndx"] != "SHN_UNDEF":
                    addend = item["r_addend"] if item["r_info_type"] == _ABSOLUTE else 0
                    yield item["r_offset"], symbol["st_value"] + addend

    @cached_property
    def _decoder(self) -> Any:
        import capstone

        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        decoder.detail = True
        return decoder

    def _section(self, address: int) -> tuple[int, str, bytes]:
        """Where it begins, its name and what is in it; nothing, where nothing is loaded there."""
        found = ((start, name, data) for start, end, name, data in self._sections if start <= address < end)
        return next(found, (address, "", b""))

    def _bytes(self, address: int, size: int) -> bytes:
        start, _, data = self._section(address)
        return data[address - start : address - start + size]

    def references(self, address: int) -> tuple[int, ...]:
        """The addresses that a function's instructions name, in their order, or that a table holds."""
        if address not in self._known:
            size, is_code = self._sizes[address]
            found = self._named(address, size) if is_code else self._held(address, size)
            self._known[address] = tuple(self._resolved(item) for item in found)
        return self._known[address]

    def _held(self, address: int, size: int) -> list[int]:
        places = range(address, address + size, _POINTER)
        return [self._relocated[place] for place in places if place in self._relocated]

    def _named(self, address: int, size: int) -> list[int]:
        from capstone import CS_GRP_CALL, CS_GRP_JUMP
        from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_REG_RIP

        found = []
        for item in self._decoder.disasm(self._bytes(address, size), address):
            for operand in item.operands:
                if operand.type == X86_OP_MEM and operand.mem.base == X86_REG_RIP:
                    found.append(item.address + item.size + operand.mem.disp)
                elif operand.type == X86_OP_IMM and (item.group(CS_GRP_CALL) or item.group(CS_GRP_JUMP)):
                    found.append(operand.imm)
        return found

    def _resolved(self, address: int) -> int:
        """What an address stands for that goes by the loader's tables; 0 where that is in another library."""
        _, section, _ = self._section(address)
        if section in (".plt", ".plt.sec"):
            slots = self._named(address, _STUB)
            return self._relocated.get(slots[0], 0) if slots else 0
        if section in (".got", ".got.plt"):
            return self._relocated.get(address, 0)
        return address

    def owner(self, address: int) -> int | None:
        """The function or object that the address is in."""
        index = bisect.bisect_right(self._starts, address) - 1
        start = self._starts[index] if index >= 0 else address
        return start if index >= 0 and address < start + self._sizes[start][0] else None

    def reached(self, roots: Iterable[int], without: frozenset[int]) -> frozenset[int]:
        """Functions, objects and strings that these need, themselves included; what is `without` is not there."""
        seen: set[int] = set()
        waiting = list(roots)
        while waiting:
            address = waiting.pop()
            owner = self.owner(address)
            found = owner if owner is not None else address
            if found in seen or found in without:
                continue
            seen.add(found)
            if owner is not None:
                waiting += self.references(owner)
        return frozenset(seen)

    def measured(self, reached: frozenset[int]) -> Piece:
        """The size of what was reached."""
        instructions = constants = pointers = 0
        for address in reached:
            size, is_code = self._sizes.get(address, (0, False))
            if is_code:
                instructions += size
            elif size:
                held = len(self._held(address, size))
                pointers += held
                constants += size - held * _POINTER
            else:
                constants += self._string(address)
        return Piece(instructions, constants, pointers)

    def _string(self, address: int) -> int:
        """The bytes of a string; 0 for what is none. Tables of jumps are left out: Thumb-2 has theirs in its code."""
        _, section, _ = self._section(address)
        if section != ".rodata":
            return 0
        text, end, _ = self._bytes(address, _LONGEST_STRING).partition(b"\0")
        return len(text) + 1 if end and text and _PRINTABLE.issuperset(text) else 0
