"""The code that a model needs on a microcontroller: interpreter and operators (`micro --json`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """The sizes of the sections that a linker keeps.

    Attributes:
        instructions: The size of the instructions, in bytes.
        constants: The size of the constants (strings and tables), in bytes.
        pointers: The number of pointers in tables.
    """

    instructions: int
    constants: int
    pointers: int

    def __sub__(self, other: Piece) -> Piece:
        return Piece(
            self.instructions - other.instructions, self.constants - other.constants, self.pointers - other.pointers
        )


@dataclass(frozen=True)
class CodeSize:
    """The code that one model needs.

    Attributes:
        interpreter: The interpreter without operators.
        operators: Each operator's name, and what it adds to an interpreter without other operators.
        together: The interpreter with all operators; code that several operators share is counted once.
        missing: The operators whose code was not found.
    """

    interpreter: Piece
    operators: tuple[tuple[str, Piece], ...]
    together: Piece
    missing: tuple[str, ...]
