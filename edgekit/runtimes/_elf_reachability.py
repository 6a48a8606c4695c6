"""Computes which code and data of a library some of its functions reach, as a linker with `--gc-sections` keeps it.

It reads ELF files for x86-64 with symbols. The references of a function are in its instructions: calls, jumps and
addresses relative to the instruction. The references of a table, such as a virtual function table, are relocations.
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

_POINTER_BYTES = 8
# Longer byte sequences are not taken for strings.
_MAX_STRING_BYTES = 4096
# Size of an entry of the procedure linkage table.
_PLT_ENTRY_BYTES = 16
# The relocation types R_X86_64_RELATIVE and R_X86_64_64, which have an addend; all others only name a symbol.
_RELATIVE, _ABSOLUTE = 8, 1
# The section flag SHF_ALLOC: the section is loaded into memory.
_SHF_ALLOC = 2
# The characters of text: printable ASCII, tab and newline.
_PRINTABLE = frozenset((*range(32, 127), 9, 10))


class Library:
    """A shared library for x86-64 with its symbol table.

    Attributes:
        addresses: The address of each function and object, by symbol name.
    """

    def __init__(self, path: Path) -> None:
        """Read a library.

        Args:
            path: The file.

        Raises:
            InputError: The file cannot be read, is not an ELF file for x86-64, or has no symbol table.
        """
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        try:
            self._elf = ELFFile(BytesIO(read_bytes(path, "library")))
            self._read(path)
        except ELFError as error:
            raise InputError(f"{path}: not an ELF file ({error})") from error

    def _read(self, path: Path) -> None:
        table = self._elf.get_section_by_name(".symtab")
        if self._elf["e_machine"] != "EM_X86_64" or table is None:
            raise InputError(f"{path}: not an x86-64 library with a symbol table")
        self._sections = [
            (section["sh_addr"], section["sh_addr"] + section["sh_size"], section.name, section.data())
            for section in self._elf.iter_sections()
            if section["sh_flags"] & _SHF_ALLOC and section["sh_type"] != "SHT_NOBITS"  # .bss has no bytes in the file
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
        self._references: dict[int, tuple[int, ...]] = {}

    def _relocations(self) -> Iterator[tuple[int, int]]:
        """Yield (place, value) for each address of this library that the loader writes."""
        symbols = self._elf.get_section_by_name(".dynsym")
        for name in (".rela.dyn", ".rela.plt"):
            section = self._elf.get_section_by_name(name)
            for entry in () if section is None else section.iter_relocations():
                if entry["r_info_type"] == _RELATIVE:
                    yield entry["r_offset"], entry["r_addend"]
                    continue
                symbol = symbols.get_symbol(entry["r_info_sym"])
                if symbol["st_shndx"] != "SHN_UNDEF":
                    addend = entry["r_addend"] if entry["r_info_type"] == _ABSOLUTE else 0
                    yield entry["r_offset"], symbol["st_value"] + addend

    @cached_property
    def _decoder(self) -> Any:
        import capstone

        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        decoder.detail = True
        return decoder

    def _section(self, address: int) -> tuple[int, str, bytes]:
        """Return start, name and content of the section at an address; no content where no section is loaded."""
        matches = ((start, name, data) for start, end, name, data in self._sections if start <= address < end)
        return next(matches, (address, "", b""))

    def _bytes(self, address: int, size: int) -> bytes:
        start, _, data = self._section(address)
        return data[address - start : address - start + size]

    def references(self, address: int) -> tuple[int, ...]:
        """Return what a function or object refers to.

        Args:
            address: Its start.

        Returns:
            The addresses in the function's instructions, in their order, or in the object's pointers.
        """
        if address not in self._references:
            size, is_code = self._sizes[address]
            targets = self._code_references(address, size) if is_code else self._pointers(address, size)
            self._references[address] = tuple(self._resolve(target) for target in targets)
        return self._references[address]

    def _pointers(self, address: int, size: int) -> list[int]:
        places = range(address, address + size, _POINTER_BYTES)
        return [self._relocated[place] for place in places if place in self._relocated]

    def _code_references(self, address: int, size: int) -> list[int]:
        from capstone import CS_GRP_CALL, CS_GRP_JUMP
        from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_REG_RIP

        targets = []
        for instruction in self._decoder.disasm(self._bytes(address, size), address):
            is_branch = instruction.group(CS_GRP_CALL) or instruction.group(CS_GRP_JUMP)
            for operand in instruction.operands:
                if operand.type == X86_OP_MEM and operand.mem.base == X86_REG_RIP:
                    targets.append(instruction.address + instruction.size + operand.mem.disp)
                elif operand.type == X86_OP_IMM and is_branch:
                    targets.append(operand.imm)
        return targets

    def _resolve(self, address: int) -> int:
        """Follow an address through the PLT or GOT to its target; 0 if the target is in another library."""
        _, section, _ = self._section(address)
        if section in (".plt", ".plt.sec"):
            slots = self._code_references(address, _PLT_ENTRY_BYTES)
            return self._relocated.get(slots[0], 0) if slots else 0
        if section in (".got", ".got.plt"):
            return self._relocated.get(address, 0)
        return address

    def owner(self, address: int) -> int | None:
        """Return the start of the function or object that contains an address, or None."""
        index = bisect.bisect_right(self._starts, address) - 1
        start = self._starts[index] if index >= 0 else address
        return start if index >= 0 and address < start + self._sizes[start][0] else None

    def reached(self, roots: Iterable[int], without: frozenset[int]) -> frozenset[int]:
        """Compute what some functions or objects need.

        Args:
            roots: The addresses to start from.
            without: Addresses that are neither included nor followed.

        Returns:
            The addresses of the needed functions, objects and strings, including the roots.
        """
        needed: set[int] = set()
        waiting = list(roots)
        while waiting:
            address = waiting.pop()
            owner = self.owner(address)
            start = owner if owner is not None else address
            if start in needed or start in without:
                continue
            needed.add(start)
            if owner is not None:
                waiting += self.references(owner)
        return frozenset(needed)

    def measured(self, reached: frozenset[int]) -> Piece:
        """Return the total size of the functions, objects and strings at these addresses."""
        instructions = constants = pointers = 0
        for address in reached:
            size, is_code = self._sizes.get(address, (0, False))
            if is_code:
                instructions += size
            elif size:
                n_pointers = len(self._pointers(address, size))
                pointers += n_pointers
                constants += size - n_pointers * _POINTER_BYTES
            else:
                constants += self._string(address)
        return Piece(instructions, constants, pointers)

    def _string(self, address: int) -> int:
        """The size of a string, or 0 for other data, such as jump tables, which Thumb-2 stores in the code."""
        _, section, _ = self._section(address)
        if section != ".rodata":
            return 0
        text, end, _ = self._bytes(address, _MAX_STRING_BYTES).partition(b"\0")
        return len(text) + 1 if end and text and _PRINTABLE.issuperset(text) else 0
