"""How much code a model needs beside itself: that of its interpreter and of its operators."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """What a linker keeps: bytes of instructions, bytes of constants (strings and tables), and pointers in tables."""

    instructions: int
    constants: int
    pointers: int

    def __sub__(self, other: Piece) -> Piece:
        return Piece(
            self.instructions - other.instructions, self.constants - other.constants, self.pointers - other.pointers
        )


@dataclass(frozen=True)
class CodeSize:
    """Of one model: the interpreter, each operator as what it adds to an interpreter that has no other, and all
    together, where what several share is counted once. `missing` are operators whose code was not found.
    """

    interpreter: Piece
    operators: tuple[tuple[str, Piece], ...]
    together: Piece
    missing: tuple[str, ...]
